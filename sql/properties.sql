--
-- Properties, each tried with 100,000 random cases: those of what needs a server.
-- What fails says for which seed.
--

LOAD 'bbm';
\getenv module BBM_TEST_MODULE
CREATE FUNCTION hours_properties(cases int, seed bigint) RETURNS text LANGUAGE c AS :'module', 'bbm_test_hours_properties';
CREATE FUNCTION key_properties(rel regclass, columns text, index_name text, pool text[], cases int, seed bigint)
RETURNS text LANGUAGE c AS :'module', 'bbm_test_key_properties';
CREATE FUNCTION seed() RETURNS bigint LANGUAGE sql AS 'SELECT (random() * 2147483647)::bigint';

-- active hours across daylight saving
SELECT hours_properties(100000, seed()) AS fails;
-- found once: a clock that was set back by half an hour showed the end of yesterday's window again
SELECT hours_properties(100000, 11102951) AS fails;

-- keys of any types and directions, with their least and greatest values: how they compare, in C and in SQL, and what becomes of them as bounds
CREATE TABLE k (a int NOT NULL, b bigint NOT NULL, c text NOT NULL, d text COLLATE "C" NOT NULL, e numeric NOT NULL, f date NOT NULL, g float8 NOT NULL,
    h varchar(3) NOT NULL, i bytea NOT NULL, j interval NOT NULL, k timestamptz NOT NULL, l name NOT NULL, m boolean NOT NULL);
CREATE INDEX k_a ON k (a);
CREATE INDEX k_b ON k (b);
CREATE INDEX k_cd ON k (c, d DESC);
CREATE INDEX k_ef ON k (e DESC, f, g DESC);
CREATE INDEX k_hi ON k (h, i);
CREATE INDEX k_jk ON k (j DESC, k DESC, m);
CREATE INDEX k_ab ON k (a, b);
CREATE INDEX k_l ON k (l DESC);
-- what texts depend on
SET datestyle = 'SQL, DMY';
SET intervalstyle = iso_8601;
SET extra_float_digits = 0;
SET bytea_output = escape;
SELECT index_name, key_properties('k', columns, index_name, pool, 100000 / 8, seed()) AS fails FROM (VALUES
    ('k_a', 'a', ARRAY[ARRAY['0', '1', '-1', '2', '2147483647', '-2147483648']]),
    ('k_b', 'b', ARRAY[ARRAY['0', '1', '-1', '2', '9223372036854775807', '-9223372036854775808']]),
    ('k_cd', 'c, d', ARRAY[ARRAY['', 'a', 'B', 'b', '"', 'ä'], ARRAY['', 'a', 'B', 'b', '\', '{,}']]),
    ('k_ef', 'e, f, g', ARRAY[ARRAY['0', '1.0', '1.00', '-1e100', 'NaN', '0.3'], ARRAY['2000-01-01', '2000-01-02', '2000-12-01', 'infinity', '-infinity', '0044-03-15 BC'],
        ARRAY['0', '-0', '0.1', 'NaN', '-Infinity', '0.30000000000000004']]),
    ('k_hi', 'h, i', ARRAY[ARRAY['', 'a', ' ', 'a ', 'B', 'aa'], ARRAY['', '\x00', '\x0000', '\x5c', '\xff', '\x27']]),
    ('k_jk', 'j, k, m', ARRAY[ARRAY['0', '1 day', '24:00', '1 mon', '30 days', '-1 day -00:00:01'], ARRAY['2000-01-01 00:00+00', '2000-01-01 01:00+01', 'infinity', '-infinity',
        '2024-10-27 02:30+02', '2024-10-27 02:30+01'], ARRAY['f', 't', 'f', 't', 'f', 't']]),
    ('k_ab', 'a, b', ARRAY[ARRAY['0', '1', '-1', '2', '2147483647', '-2147483648'], ARRAY['0', '1', '-1', '2', '9223372036854775807', '-9223372036854775808']]),
    ('k_l', 'l', ARRAY[ARRAY['', 'a', 'A', 'b', '"a"', 'aa']])) v (index_name, columns, pool) ORDER BY 1;
DROP TABLE k;

-- ranges of an integer key with gaps, up to its least and greatest values: where they begin and end, and how many keys they have
CREATE EXTENSION bbm;
CREATE FUNCTION range_properties(migration bigint, keys bigint[], cases int, seed bigint) RETURNS text LANGUAGE c AS :'module', 'bbm_test_range_properties';
CREATE TABLE r (id bigint PRIMARY KEY, n int);
INSERT INTO r SELECT i FROM generate_series(-5, 5) i UNION ALL SELECT i * 1000 FROM generate_series(1, 9) i
UNION ALL VALUES (-9223372036854775808), (-9223372036854775807), (9223372036854775805), (9223372036854775807);
SELECT bbm_create('r', 'r', 'UPDATE r SET n = 1 WHERE id BETWEEN $1 AND $2') AS id \gset
SELECT range_properties(:id, (SELECT array_agg(id ORDER BY id) FROM r), 100000, seed()) AS fails;
DROP FUNCTION range_properties;
DROP EXTENSION bbm;
DROP TABLE r;
DROP FUNCTION hours_properties, key_properties, seed;
