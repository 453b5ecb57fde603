# bbm: batched background migrations inside PostgreSQL
#
# make, make install        as any PGXS extension
# make demo, make test      set up what is missing on Debian, build, and run
# make check-local          every test, on a machine that is set up
# make bench, make lint, make proof   see CONTRIBUTING.md
# make deb, make dist       a Debian package for each installed server, a zip for PGXN

MODULE_big = bbm
EXTENSION = bbm
DATA = sql/bbm--1.0.sql
PGFILEDESC = "bbm - batched background migrations"
OBJS = src/module.o \
	src/base/backends.o src/base/blockers.o src/base/cancel.o src/base/clock.o src/base/commit.o src/base/cpu_use.o src/base/cpu_waits.o src/base/guc.o src/base/hours.o \
	src/base/impact.o src/base/impact_counts.o \
	src/base/lock_watch.o src/base/locks.o src/base/neighbours.o src/base/overrides.o src/base/printable.o src/base/progress.o src/base/rates.o \
	src/base/requests.o src/base/shares.o src/base/shmem.o src/base/slots.o src/base/spi.o src/base/standby.o src/base/trouble.o \
	src/base/txn.o src/base/user.o src/base/wait_event.o src/base/wait_state.o src/base/waiting.o \
	src/catalog/batch_counts.o src/catalog/claims.o src/catalog/errors.o src/catalog/events.o src/catalog/extension.o src/catalog/import.o \
	src/catalog/job_progress.o src/catalog/job_record.o src/catalog/jobs.o src/catalog/merge.o src/catalog/migrations.o \
	src/catalog/options.o src/catalog/partitions.o \
	src/catalog/distribution.o src/catalog/recent.o src/catalog/shape.o src/catalog/shard_control.o src/catalog/shard_errors.o src/catalog/shard_parts.o src/catalog/shard_records.o src/catalog/shards.o src/catalog/sql.o src/catalog/stalled.o src/catalog/tables.o src/catalog/totals.o src/catalog/whole.o \
	src/target/bound.o src/target/cascade.o src/target/changes.o src/target/draw.o src/target/explain.o src/target/filter.o src/target/hierarchy.o src/target/job.o src/target/key.o src/target/key_index.o src/target/key_order.o \
	src/target/key_query.o src/target/key_scan.o src/target/key_sql.o src/target/lockset.o src/target/null_keys.o \
	src/target/nulls.o src/target/order.o src/target/partition.o src/target/partitions.o src/target/plan_guard.o src/target/reads.o \
	src/target/relation.o src/target/rights.o src/target/sample.o src/target/size.o src/target/statement.o src/target/statement_text.o \
	src/target/type_parts.o src/target/user_text.o \
	src/strategy/block.o src/strategy/loose.o src/strategy/null.o src/strategy/resolve.o src/strategy/serial.o \
	src/strategy/strategy.o \
	src/throttle/load.o src/throttle/pace.o src/throttle/pacing.o src/throttle/signal.o src/throttle/table.o src/throttle/throttle.o src/throttle/vacuum.o \
	src/throttle/wal.o \
	src/engine/batch.o src/engine/bisect.o src/engine/books.o src/engine/breaker.o src/engine/claim.o src/engine/cluster.o src/engine/completion.o src/engine/engine.o src/engine/error_class.o \
	src/engine/event.o src/engine/no_rows.o src/engine/outcome.o src/engine/outside.o src/engine/postpone.o src/engine/run_job.o src/engine/run_range.o \
	src/engine/scheduler.o src/engine/step.o src/engine/title.o src/engine/verify.o \
	src/server/ddl.o src/server/ended.o src/server/handover.o src/server/hooks.o src/server/launcher.o src/server/read_only.o src/server/stalled.o \
	src/server/statements.o \
	src/server/truncate.o src/server/worker.o \
	src/sql/access.o src/sql/arguments.o src/sql/bounds.o src/sql/cluster.o src/sql/cluster_control.o src/sql/cluster_guard.o src/sql/cluster_job.o src/sql/columns.o src/sql/control.o src/sql/define.o src/sql/doctor.o src/sql/dry_run.o src/sql/existing.o src/sql/forward.o \
	src/sql/guards.o src/sql/import.o src/sql/job_guard.o src/sql/metrics.o src/sql/preview.o src/sql/progress.o src/sql/registry_tables.o src/sql/row.o src/sql/row_checks.o src/sql/run.o src/sql/screen.o \
	src/sql/sync_trigger.o src/sql/trial.o src/sql/verify.o src/sql/view.o
# a library for tests alone, whose processes can be stopped at points: make BBM_POINTS=1
OBJS += $(if $(BBM_POINTS),src/base/point.o)

# The tests, in the order in which they run; `make lint` knows one not listed.
# sql/NAME.sql, test/specs/NAME.spec and test/t/NAME.pl
REGRESS = install settings role_settings doctor screen refused metrics limits throttle pace impact create options if_not_exists statement sync_trigger recipes guards properties privileges others operator spying attack columns forgotten shadow nologin \
	control status progress run run_options runbook registry owner restored import plan_guard background failures keys nullable strategies partitions moved_rows row_security identity on_error retry breaker no_rows sizes claims memory follow table_scan \
	blocks verify verify_all dry_run preview counts trouble key_change reference documented
ISOLATION = claim-claim claim-pause pause-work start-finish steal drop-batch alter-claim retry row-lock \
	run-beside-run control-open control-rollback two-migrations prepared sync-trigger follow block-move dry-run \
	lock-upgrade lock-partitions ids statement-trigger import null-keys lock-commands if-not-exists names truncate job-delete handover
TAP = 001_latency 002_pause 003_crash 004_launcher 005_databases 006_versions 007_dump 008_prepared 009_torture 010_standby \
	011_upgrade 012_throttle 013_yielding 014_attack 015_promotion 016_copies 017_resources 018_partitions 019_blocks 020_verify 021_stalled \
	022_pg_upgrade 023_other_extensions 024_fuzz 025_blockers 030_commands 030_fairness 031_cancel 031_priority 032_null_keys 032_outside 032_registry \
	033_job_comes_later 034_owned_tables 035_membership 036_lock_watch 037_last_job 036_rights 037_xid_limit 038_metrics 039_claims 039_impact 040_pages \
	041_delete_standby 042_distributed 043_distributed_changes 043_distributed_control 043_distributed_reads 043_distributed_recovery 043_distributed_speed 043_distributed_tables 043_distributed_verify 043_distributed_windows 044_flush 045_cpu_use 046_sessions 047_lost_slot 048_downtime 049_clock \
	050_points_batch 051_points_claim 052_points_record 053_points_end 054_races 055_history 056_side_races 057_process_races 058_shard_races 059_small_races
# They compare times: nothing may run beside them.
TAP_ALONE = 001_latency 012_throttle 013_yielding 039_impact
ISOLATION_OPTS = --inputdir=$(srcdir)/test
REGRESS_OPTS = --no-locale --encoding=UTF8
# installcheck is for a server that somebody has set up to preload the library; the
# isolation tests need one with settings of their own, which check-local starts.
ifneq ($(filter installcheck,$(MAKECMDGOALS)),)
ISOLATION =
endif

PG_CPPFLAGS = -I$(srcdir)/src $(if $(BBM_POINTS),-DBBM_POINTS)
# the headers of 15 have functions without a prototype, which C23 takes for functions without parameters
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Werror=implicit-function-declaration $(if $(filter 15,$(MAJORVERSION)),-std=gnu17) $(COPT)
EXTRA_CLEAN = .build

PG_CONFIG ?= pg_config
# nothing yet on a bare machine, where `make test` and `make demo` are to work
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else ifneq ($(filter-out setup demo test,$(or $(MAKECMDGOALS),all)),)
$(error no PGXS from "$(PG_CONFIG)": install the server's development files or run test/setup)
endif

# ... and has no module of the tests, which check-local builds
ifneq ($(filter installcheck,$(MAKECMDGOALS)),)
REGRESS := $(filter-out $(basename $(notdir $(shell grep -l BBM_TEST_MODULE $(srcdir)/sql/*.sql))),$(REGRESS))
endif

# PGXS tracks no header dependencies by default
$(OBJS): $(wildcard $(srcdir)/src/*/*.h)

# ... nor that an object was built for another server or with other flags
$(OBJS) $(OBJS:.o=.bc): .build
.build: FORCE
	@echo '$(VERSION) $(CC) $(COPT) $(BBM_POINTS)' | cmp -s - $@ || echo '$(VERSION) $(CC) $(COPT) $(BBM_POINTS)' >$@
FORCE:

# ... nor has a folder that is built in (VPATH) those of the sources
ifneq ($(VPATH),)
$(shell mkdir -p $(sort $(dir $(OBJS))))
endif

export PG_CONFIG

setup:
	@$(or $(srcdir),.)/test/setup

demo: setup
	@$(or $(srcdir),.)/test/demo

test: setup
	@$(MAKE) --no-print-directory check-local

check-local:
	@REGRESS='$(REGRESS)' ISOLATION='$(ISOLATION)' TAP='$(TAP)' TAP_ALONE='$(TAP_ALONE)' $(or $(srcdir),.)/test/run

bench:
	@$(or $(srcdir),.)/test/bench/run

model:
	@$(or $(srcdir),.)/test/model/run

properties:
	@$(or $(srcdir),.)/test/properties/run

mutate:
	@$(or $(srcdir),.)/test/mutate

proof:
	@$(or $(srcdir),.)/test/proof

lint:
	@REGRESS='$(REGRESS)' ISOLATION='$(ISOLATION)' TAP='$(TAP)' $(or $(srcdir),.)/test/lint

deb:
	@$(or $(srcdir),.)/packaging/deb

dist:
	@$(or $(srcdir),.)/packaging/dist

package-check:
	@$(or $(srcdir),.)/test/package

.PHONY: setup demo test check-local bench model properties mutate proof lint deb dist package-check FORCE
