#!/usr/bin/env python3
"""What the container registry's store sends to the two tables, as its driver does: prepared, in the
extended protocol, each parameter as text whose type the server has to resolve.

    client.py CONNECTION PAUSED FINISHED

PAUSED: a migration that is in the middle, with one job finished; FINISHED: one that has ended.
Says "ok - …" or "not ok - …" for each thing that it checks.
"""

import sys
import time
from datetime import datetime

import psycopg

connection_string, paused, finished = sys.argv[1:]
db = psycopg.connect(connection_string, autocommit=True)
bad = 0

# a field's type is what the client has a variable for; those with a ? may be null
INT2, INT4, INT8, TEXT, TIME = 21, 23, 20, 25, 1184
MIGRATION = {
    "id": (INT8, int), "name": (TEXT, str), "created_at": (TIME, datetime), "updated_at?": (TIME, datetime),
    "started_at?": (TIME, datetime), "finished_at?": (TIME, datetime), "min_value": (INT8, int), "max_value": (INT8, int),
    "batch_size": (INT4, int), "sub_batch_size": (INT4, int), "status": (INT2, int), "job_signature_name": (TEXT, str),
    "table_name": (TEXT, str), "column_name": (TEXT, str), "failure_error_code?": (INT2, int),
    "batching_strategy?": (TEXT, str), "total_tuple_count?": (INT8, int),
}
JOB = {
    "id": (INT8, int), "created_at": (TIME, datetime), "updated_at?": (TIME, datetime), "started_at?": (TIME, datetime),
    "finished_at?": (TIME, datetime), "batched_background_migration_id": (INT8, int), "min_value": (INT8, int),
    "max_value": (INT8, int), "status": (INT2, int), "failure_error_code?": (INT2, int), "attempts": (INT2, int),
}


def ok(right, what):
    global bad
    bad += not right
    print("ok" if right else "not ok", "-", what, flush=True)


def same(got, wanted, what):
    ok(got == wanted, what if got == wanted else f"{what}: {got!r} instead of {wanted!r}")


def send(sql, *parameters):
    """All parameters are text of unknown type, which is what psycopg makes of a str."""
    return db.execute(sql, [None if p is None else str(p) for p in parameters], prepare=True)


def value(sql, *parameters):
    row = send(sql, *parameters).fetchone()
    return row[0] if row else None


def columns(record):
    return ", ".join(name.rstrip("?") for name in record)


def rows(record, what, sql, *parameters):
    """Reads rows into a record, whose fields are there and, where they have to be, not null."""
    cursor = send(sql.replace("*", columns(record), 1), *parameters)
    got = cursor.fetchall()
    wrong = set()
    for (name, (type_, class_)), column in zip(record.items(), cursor.description):
        if column.type_code != type_:
            wrong.add(f"{name} has type {column.type_code}")
    for row in got:
        for (name, (type_, class_)), field in zip(record.items(), row):
            if not isinstance(field, class_) and not (field is None and name.endswith("?")):
                wrong.add(f"{name} is {field!r}")
    ok(got and not wrong, f"{what}: {len(got)} read" + "".join(f", {w}" for w in sorted(wrong)))
    return [dict(zip((n.rstrip("?") for n in record), row)) for row in got]


def migrations(what, rest, *parameters):
    return rows(MIGRATION, what, "SELECT * FROM batched_background_migrations " + rest, *parameters)


def jobs(what, rest, *parameters):
    return rows(JOB, what, "SELECT * FROM batched_background_migration_jobs WHERE batched_background_migration_id = %s " + rest, *parameters)


def reach(name, status):
    """Waits for a status."""
    for _ in range(3600):
        if value("SELECT status FROM batched_background_migrations WHERE name = %s", name) == status:
            return
        time.sleep(0.05)
    [state] = send("SELECT status, failure_error_code, error_message FROM batched_background_migrations WHERE name = %s", name)
    sys.exit(f"{name} does not get status {status}: {state}")


def reading():
    everything = migrations("all, by id", "ORDER BY id")
    same([m["id"] for m in everything], sorted(m["id"] for m in everything), "... in that order")
    same(len(everything), 193, "... of which there are 193")
    same({m["sub_batch_size"] for m in everything}, {0, 10}, "sub_batch_size is a number, and 0 where there is none")
    [middle] = migrations("by name", "WHERE name = %s", paused)
    [again] = migrations("by id", "WHERE id = %s", middle["id"])
    same(again, middle, "... the same one")
    same([m["name"] for m in migrations("by status", "WHERE status = %s ORDER BY id", 0)], [paused], "... the one that is paused")
    ok(middle["started_at"] and middle["updated_at"] and not middle["finished_at"] and middle["failure_error_code"] is None,
       "its times and its code are those of one that has started")
    same(send("SELECT status, count(*) FROM batched_background_migrations GROUP BY status ORDER BY status").fetchall(),
         [(0, 1), (2, 192)], "counts by status")
    same(value("SELECT count(*) FROM batched_background_migrations WHERE name = ANY (%s) AND status <> %s", "{%s}" % finished, 2), 0,
         "are these finished: yes")
    same(value("SELECT count(*) FROM batched_background_migrations WHERE name = ANY (%s) AND status <> %s", "{%s,%s}" % (finished, paused), 2), 1,
         "are these finished: no")

    [last] = jobs("the job with the highest id", "ORDER BY id DESC LIMIT 1", middle["id"])
    [first] = jobs("by status and lowest id", "AND status = %s ORDER BY id LIMIT 1", middle["id"], 2)
    ok(last["id"] > first["id"] and last["min_value"] > first["max_value"], "... one after the other")
    [by_value] = jobs("the job that ends at a value", "AND max_value = %s", middle["id"], first["max_value"])
    same(by_value, first, "... the same one")
    same(first["attempts"], 1, "... was tried once")
    ok(first["started_at"] <= first["finished_at"], "... and has its times")
    same(value("SELECT count(*) FROM batched_background_migration_jobs WHERE batched_background_migration_id = %s AND status = %s", middle["id"], 3), 0,
         "failed jobs of a migration")


def progress():
    """Its metric: finished job rows x batch size, as part of total_tuple_count."""
    seen = {}
    for name, table, status, batch_size, total, count in send(
            "SELECT m.name, m.table_name, m.status, m.batch_size, m.total_tuple_count, count(j.id) FROM batched_background_migrations m "
            "LEFT JOIN batched_background_migration_jobs j ON j.batched_background_migration_id = m.id AND j.status = %s "
            "WHERE m.batching_strategy IS DISTINCT FROM %s GROUP BY m.id ORDER BY m.id", 2, "NullKeySetBatchingStrategy"):
        seen[name] = (table, status, batch_size, total, count)
    _, status, batch_size, total, count = seen.pop(paused)
    same((status, count * batch_size), (0, 40), "progress of the one in the middle: one job of 40 rows")
    ok(total > 60, "... of about those that the partition has")
    # total is an estimate; the row counts show whether each job is a row.  Where the last of them
    # is full, one more goes on to max_value.
    there = dict(send("SELECT tableoid::regclass::text, count(*) FROM public.blobs GROUP BY 1 "
                      "UNION ALL SELECT tableoid::regclass::text, count(*) FROM public.manifests GROUP BY 1").fetchall())
    there["public.manifests"] = sum(n for table, n in there.items() if ".manifests" in table)
    same({name: count for name, (table, _, batch_size, _, count) in seen.items() if not there[table] <= count * batch_size <= there[table] + batch_size}, {},
         f"... and of {len(seen)} that are finished: all their rows")


def controlling():
    insert = "INSERT INTO batched_background_migrations (name, min_value, max_value, batch_size, job_signature_name, table_name, column_name"
    # with neither status nor strategy
    ours = value(insert + ") VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
                 "plain", 1, 9223372036854775807, 100, "notThereYet", "public.manifests", "id")
    ok(isinstance(ours, int), "INSERT without status and strategy")
    for name, status, strategy in (("with_status", 0, None), ("with_both", 0, "NullKeySetBatchingStrategy")):
        if strategy:
            sent = send(insert + ", status, batching_strategy) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                        name, 0, 0, 100, "notThereYet", "public.blobs", "id", status, strategy)
        else:
            sent = send(insert + ", status) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", name, 1, 10, 100, "notThereYet", "public.manifests", "id", status)
        same(sent.rowcount, 1, f"INSERT {name}")
    # as a schema change is taken back
    for name in ("with_status", "with_both"):
        same(send("DELETE FROM batched_background_migrations WHERE name = %s", name).rowcount, 1, f"DELETE of {name}")
    # a strategy that is sent as null; its function is there, or it would wait for that first
    db.execute('CREATE FUNCTION "countRows"(table_name text, column_name text, min bigint, max bigint, batch_size integer) '
               "RETURNS void LANGUAGE sql AS 'SELECT'")
    fails = value(insert + ", status, batching_strategy) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
                  "restarted", 1, 9223372036854775807, 1000, "countRows", "public.manifests", "no_such_column", 1, None)

    reach("restarted", 3)
    same(value("SELECT failure_error_code FROM batched_background_migrations WHERE id = %s", fails), 2, "one whose column is not there fails with code 2")

    # resume: also what nobody has started, and what was paused in the middle
    same(send("UPDATE batched_background_migrations SET status = %s WHERE status = %s", 1, 0).rowcount, 2, "resume")
    reach(paused, 2)
    ok(True, "... and what was paused in the middle comes to its end")
    [following] = migrations("the next one to run", "WHERE status IN (%s, %s) ORDER BY CASE status WHEN 4 THEN 0 ELSE 1 END, id LIMIT 1", 1, 4)
    same((following["name"], following["status"]), ("plain", 1), "... is the one that waits for its function")
    same(send("UPDATE batched_background_migrations SET status = %s WHERE status IN (%s, %s)", 0, 1, 4).rowcount, 1, "pause")
    same([m["name"] for m in migrations("what is paused", "WHERE status = %s ORDER BY id", 0)], ["plain"], "... that one")
    same(send("UPDATE batched_background_migrations SET status = %s WHERE status = %s", 1, 0).rowcount, 1, "resume of it")
    same(send("DELETE FROM batched_background_migrations WHERE name = %s", "plain").rowcount, 1, "DELETE of one that is active")

    # restart: by id, when its cause has been seen to
    same(send("UPDATE batched_background_migrations SET column_name = %s WHERE id = %s", "id", fails).rowcount, 1, "the column is corrected")
    same(send("UPDATE batched_background_migrations SET status = %s, failure_error_code = %s WHERE id = %s", 1, None, fails).rowcount, 1, "restart")
    reach("restarted", 2)
    [restarted] = migrations("by id", "WHERE id = %s", fails)
    same((restarted["failure_error_code"], restarted["started_at"] <= restarted["finished_at"]), (None, True), "... and it finishes, without a code")

    # what the Go worker itself writes is not for it
    try:
        send("INSERT INTO batched_background_migration_jobs (batched_background_migration_id, min_value, max_value) VALUES (%s, %s, %s)", fails, 1, 10)
        ok(False, "a job of its own is refused")
    except psycopg.Error as refused:
        ok("backgroundmigrations" in str(refused), "a job of its own is refused, with the setting that turns it off")


reading()
progress()
controlling()
db.close()
sys.exit(bad > 0)
