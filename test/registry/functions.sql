--
-- The registry's jobs, with its names and its five parameters.
--

CREATE FUNCTION "populateBlobsIDColumn"(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
BEGIN
    EXECUTE format('UPDATE %1$s SET %2$I = nextval(''public.blobs_id_seq'') WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE %2$I IS NULL LIMIT $1))',
                   table_name, column_name) USING batch_size;
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done;
END $$;

CREATE FUNCTION "copyManifestConfigMediaTypeIDToNewBigIntColumn"(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET configuration_media_type_id_convert_to_bigint = configuration_media_type_id WHERE %I BETWEEN $1 AND $2',
                   table_name, column_name) USING min, max;
END $$;

-- also records with which sizes it is called
CREATE TABLE copied_blobs (table_name text, min bigint, max bigint, size integer);
CREATE FUNCTION "copyBlobMediaTypeIDToNewBigIntColumn"(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET media_type_id_convert_to_bigint = media_type_id WHERE %I BETWEEN $1 AND $2',
                   table_name, column_name) USING min, max;
    INSERT INTO public.copied_blobs VALUES (table_name, min, max, batch_size);
END $$;

CREATE FUNCTION "copyManifestMediaTypeIDToNewBigIntColumn"(table_name text, column_name text, min bigint, max bigint, batch_size integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %s SET media_type_id_convert_to_bigint = media_type_id WHERE %I BETWEEN $1 AND $2',
                   table_name, column_name) USING min, max;
END $$;
