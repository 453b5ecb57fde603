--
-- What the registry's schema migrations insert, a statement each.  Paused, to be started by
-- hand, but for the one that is inserted as active before its function exists.
--

-- comes first in each of its newer versions, whether the column is there or not
ALTER TABLE batched_background_migrations ADD COLUMN IF NOT EXISTS sub_batch_size integer NOT NULL DEFAULT 0;

INSERT INTO batched_background_migrations
    ("name", "min_value", "max_value", "batch_size", "status", "job_signature_name", "table_name", "column_name")
VALUES ('copy_manifests_media_type_id_column_to_media_type_id_convert_to_bigint_column', 1, 9223372036854775807, 500, 1,
        'copyManifestMediaTypeIDToNewBigIntColumn', 'public.manifests', 'id');

SELECT format('INSERT INTO batched_background_migrations
    ("name", "min_value", "max_value", "batch_size", "job_signature_name", "table_name", "column_name", "batching_strategy")
VALUES (%L, 0, 0, 40, ''populateBlobsIDColumn'', %L, ''id'', ''NullKeySetBatchingStrategy'')',
              format('backfill_blobs_p_%s_id_column', i), format('partitions.blobs_p_%s', i))
FROM generate_series(0, 63) i
\gexec

SELECT format('INSERT INTO batched_background_migrations
    ("name", "min_value", "max_value", "batch_size", "job_signature_name", "table_name", "column_name")
VALUES (%L, 1, 9223372036854775807, 40, ''copyManifestConfigMediaTypeIDToNewBigIntColumn'', %L, ''id'')',
              format('copy_config_manifests_p_%s_media_type_id_column_to_media_type_id_convert_to_bigint_column', i),
              format('partitions.manifests_p_%s', i))
FROM generate_series(0, 63) i
\gexec

SELECT format('INSERT INTO batched_background_migrations
    ("name", "min_value", "max_value", "batch_size", "sub_batch_size", "status", "job_signature_name", "table_name", "column_name")
VALUES (%L, 1, 9223372036854775807, 40, 10, 0, ''copyBlobMediaTypeIDToNewBigIntColumn'', %L, ''id'')',
              format('copy_blobs_p_%s_media_type_id_column_to_media_type_id_convert_to_bigint_column', i),
              format('partitions.blobs_p_%s', i))
FROM generate_series(0, 63) i
\gexec
