//! Events for the tests: at least one for each code.

use chrono::DateTime;
use chrono_tz::Europe::Berlin;

use crate::event::{
    BackfillNote, ChangeLogWarning, ColumnWork, ConstraintWork, DemoWork, EndWork, JobNote, KeptWarning,
    LockWarning, MaintainNote, Note, PartitionNote, PhaseOutcome, PhaseWork, RunWarning, StandbyEffect,
    TableWork, ThrottleWarning, Undone, Warning,
};
use crate::model::blocker::{Blocker, SnapshotHolder, SnapshotHolders};
use crate::model::latency::Latency;
use crate::model::maintained::Stray;
use crate::model::pace::{Cause, ClosedWindows, Hold, Signal};
use crate::model::post_swap_diff::SwapChange;
use crate::model::retry_limit::RetryLimit;
use crate::model::state::State;

fn s(text: &str) -> String {
    text.to_owned()
}

fn blocker() -> Blocker {
    Blocker {
        pid: 17,
        user: s("app"),
        application: s("report"),
        state: s("idle in transaction"),
        transaction_start: s("2026-01-01 00:00:00+00"),
        query_start: s("2026-01-01 00:00:01+00"),
        age_ms: 1_500.0,
        ordinary: true,
    }
}

fn prepared() -> Blocker {
    Blocker { pid: 0, application: s("p"), ..blocker() }
}

fn slot() -> Blocker {
    Blocker { pid: 18, application: s("sub"), state: s("replication slot"), ..blocker() }
}

fn holders() -> SnapshotHolders {
    let holder = |standby: Option<&str>, blocker, unknown: Option<&str>| SnapshotHolder {
        standby: standby.map(s),
        blocker,
        unknown: unknown.map(s),
    };
    SnapshotHolders::new(vec![
        holder(None, Some(blocker()), None),
        holder(Some("b"), Some(slot()), None),
        holder(Some("c"), None, Some("it does not answer")),
        holder(None, Some(prepared()), None),
    ])
}

fn latency() -> Latency {
    Latency { chunks: 62, chunk_rows: 20_000, p50_ms: 480.0, p99_ms: 900.0, max_ms: 1_234.0 }
}

/// What phases do.
pub(super) fn works() -> Vec<PhaseWork> {
    let t = || s("public.t");
    let mut all: Vec<PhaseWork> = Vec::new();
    all.extend(
        [
            TableWork::CreatePartitionedTable { table: s("public.t_new"), partitions: 24 },
            TableWork::LogChanges { table: t() },
            TableWork::CopyRows { physical: false, workers: 1 },
            TableWork::CopyRows { physical: true, workers: 2 },
            TableWork::RemoveChangedRows { again: false },
            TableWork::RemoveChangedRows { again: true },
            TableWork::BuildPartitionIndexes { indexes: 1, partitions: 24 },
            TableWork::BuildKeyTable { table: s("public.t_email_key_keys"), index: s("t_email_key") },
            TableWork::Analyze,
            TableWork::ApplyChanges,
            TableWork::CompareTables { source: t(), target: s("public.t_new") },
            TableWork::ExchangeTables { source: t(), target: s("public.t_new"), rollback: false },
            TableWork::RebuildMaterializedView { view: s("public.m") },
        ]
        .map(PhaseWork::from),
    );
    all.extend(
        [
            ColumnWork::AddColumns { table: t(), columns: 2 },
            ColumnWork::AddColumn { table: t(), column: s("id_new") },
            ColumnWork::FillByTrigger { table: t() },
            ColumnWork::SyncByTrigger { table: t() },
            ColumnWork::FillRows { table: t(), columns: vec![s("a"), s("b")], workers: 2 },
            ColumnWork::SecondPass { table: t() },
            ColumnWork::BuildColumnIndexes { table: t(), column: s("id_new"), indexes: 2 },
            ColumnWork::ValidateConstraints { table: t() },
            ColumnWork::CompareColumns { table: t() },
            ColumnWork::ExchangeColumns { table: t(), source: s("id"), target: s("id_old"), rollback: true },
        ]
        .map(PhaseWork::from),
    );
    all.extend(
        [
            ConstraintWork::FindForeignKeyViolations,
            ConstraintWork::ValidateForeignKeys { table: t() },
            ConstraintWork::FindViolations { table: t() },
            ConstraintWork::KeepNullOut { table: t(), columns: vec![s("at"), s("id")] },
            ConstraintWork::AddChecks { table: t(), checks: 2 },
            ConstraintWork::AddForeignKeys { table: t(), keys: 1 },
            ConstraintWork::BuildIndexes { table: t(), indexes: 1 },
        ]
        .map(PhaseWork::from),
    );
    all.extend(
        [
            EndWork::EndBackfill { table: t() },
            EndWork::DropOldTable { table: Some(s("public.t_old")) },
            EndWork::DropOldTable { table: None },
            EndWork::DropOldColumn { table: t(), column: s("id_old") },
            EndWork::RemoveJob { table: t(), exists: true },
            EndWork::RemoveJob { table: t(), exists: false },
            EndWork::RemoveBackfill { table: t() },
        ]
        .map(PhaseWork::from),
    );
    let demo = [
        DemoWork::StartServer,
        DemoWork::FillDemoTable { table: s("petri_observations") },
        DemoWork::CompareWitness,
    ];
    all.extend(demo.map(PhaseWork::from));
    all
}

/// Results of phases.
pub(super) fn outcomes() -> Vec<PhaseOutcome> {
    use PhaseOutcome as O;
    vec![
        O::Completed,
        O::PartitionsReady { partitions: 24 },
        O::ColumnsReady { columns: 1 },
        O::TriggersReady,
        O::RowsCopied { rows: 1_240_000, chunks: latency() },
        O::RowsFilled { rows: 1, chunks: latency() },
        O::RowsRemoved { rows: 12 },
        O::IndexesValid,
        O::ChangesApplied { changes: 1 },
        O::TablesMatch { rows: 1_240_000, ranges: 3 },
        O::TablesDiffer { missing: 1, extra: 0, different: 1_000 },
        O::ColumnsMatch { rows: 1_240_000 },
        O::ColumnsDiffer { missing: 0, different: 1 },
        O::ColumnsDiffer { missing: 2, different: 1 },
        O::RowsComplete,
        O::RowsIncomplete { rows: 3, rows_set: 2 },
        O::NoViolations,
        O::Violations { constraints: 2 },
        O::ConstraintsValid,
        O::NamesExchanged { lock_held_ms: 33.6, attempt: 1 },
        O::ForeignKeysNotValid { keys: 1 },
        O::MaterializedViewRebuilt { view: s("public.m") },
        O::TablePartitioned { table: s("public.t") },
        O::ColumnTypeChanged { table: s("public.t"), column: s("id"), sql_type: s("bigint") },
        O::TriggerRemoved,
        O::JobRemoved,
        O::ServerStarted { directory: s("/tmp/pgstrata-x") },
        O::DemoTableFilled { rows: 200_000, bytes: 52_428_800 },
        O::WitnessCompared { rows: 200_000, differing: 0 },
    ]
}

/// Notes.
pub(super) fn notes() -> Vec<Note> {
    let t = || s("public.t");
    let mut all: Vec<Note> = Vec::new();
    all.extend(
        [
            JobNote::JobPaused { job: s("two words") },
            JobNote::JobNotPaused { job: s("t") },
            JobNote::SettingsStored { job: s("t"), settings: 2 },
            JobNote::SettingChanged { key: s("copy.workers"), value: Some(s("3")) },
            JobNote::SettingChanged { key: s("throttle.rows_per_second"), value: None },
            JobNote::PlanSettingsChanged,
            JobNote::DeadlineReached,
            JobNote::AlreadyInState { job: s("t"), state: State::Swapped },
            JobNote::AlreadyInState { job: s("t"), state: State::RolledBack },
            JobNote::AlreadyPartitioned { job: s("t"), table: t() },
            JobNote::AlreadyFilled { job: s("t"), table: t() },
            JobNote::AlreadyOfType { job: s("t"), table: t(), column: s("id"), sql_type: s("bigint") },
            JobNote::TableNotInUse { job: s("t"), state: State::Verified },
            JobNote::TableGone { job: s("t"), table: t() },
        ]
        .map(Note::from),
    );
    all.extend(
        [
            PartitionNote::PartitionAdded { partition: s("public.t_y2026m01") },
            PartitionNote::MirrorSwitchedOff,
            PartitionNote::AttachedPartitionWatched { partition: s("public.by_hand") },
            PartitionNote::CheckLeftOut {
                constraint: s("t_amount_check"),
                table: s("public.t_new"),
                source: s("public.t"),
            },
            PartitionNote::CarriedOver { target: s("public.t_new"), changes: vec![s("the owner changed")] },
            PartitionNote::EarlierVersion { table: s("public.t_new") },
            PartitionNote::NothingElseChanged,
            PartitionNote::ChangeLogCompacted { removed: 1_000 },
            PartitionNote::ForeignKeyNotTested {
                key: s("t_q"),
                error: s("canceling statement due to timeout"),
            },
            PartitionNote::StandbysNotWaitedFor {
                standbys: vec![s("b"), s("c")],
                effect: StandbyEffect::CanFail,
            },
            PartitionNote::StandbysNotWaitedFor {
                standbys: vec![s("b")],
                effect: StandbyEffect::CanMissValues,
            },
        ]
        .map(Note::from),
    );
    all.extend(swap_changes().map(|change| PartitionNote::ChangedBySwap { change }.into()));
    all.extend(other_notes());
    all
}

fn other_notes() -> Vec<Note> {
    let t = || s("public.t");
    let mut all: Vec<Note> = Vec::new();
    all.extend(
        [
            BackfillNote::ColumnsExist { table: t() },
            BackfillNote::IndexRebuilt { index: s("public.t_a_idx") },
            BackfillNote::IndexWaits { index: s("public.t_a_idx"), blockers: vec![blocker(), prepared()] },
            BackfillNote::BuiltAndKept { table: t(), name: s("t_a_check") },
            BackfillNote::ColumnKept { table: t(), column: s("a") },
            BackfillNote::PartitionGone { partition: s("public.t_y2020") },
        ]
        .map(Note::from),
    );
    let (partition, range, keep) = (s("public.t_y2025"), s("[2025-01-01, 2026-01-01)"), s("12 months"));
    let expired = |rollback_possible| MaintainNote::PartitionExpired {
        partition: partition.clone(),
        range: range.clone(),
        keep: keep.clone(),
        rollback_possible,
    };
    let (constraint, column) = (s("bound"), s("at"));
    all.extend(
        [
            MaintainNote::PartitionCreated { partition: partition.clone(), range: range.clone() },
            MaintainNote::ConstraintNotCopied { constraint, partition: partition.clone(), column },
            expired(false),
            expired(true),
            MaintainNote::PartitionDetached { partition: partition.clone(), range: range.clone() },
            MaintainNote::PartitionDropped { partition: partition.clone(), range: range.clone() },
            MaintainNote::TriggerCreated { trigger: "!pgstrata_truncate_t_pkey".into(), partition: t() },
            MaintainNote::TableAnalyzed { table: t() },
        ]
        .map(Note::from),
    );
    all
}

fn swap_changes() -> impl Iterator<Item = SwapChange> {
    [
        SwapChange::Partitioned { table: s("public.t"), column: s("at"), partitions: 24 },
        SwapChange::NotNull { column: s("at") },
        SwapChange::KeyWidened { key: s("t_pkey"), columns: vec![s("id"), s("at")] },
        SwapChange::KeyTable { index: s("t_email_key"), table: s("public.t_email_key_keys") },
        SwapChange::UniqueGivenUp { index: s("t_serial_key") },
        SwapChange::StorageParametersOnPartitions,
        SwapChange::ClusterOnPartitions,
        SwapChange::CheckNotValid { constraint: s("positive") },
        SwapChange::ForeignKeyOnPartitions { key: s("t_q") },
        SwapChange::IncomingForeignKeyDropped { key: s("c_t"), table: s("public.c") },
        SwapChange::PublishedViaRoot { publication: s("out") },
    ]
    .into_iter()
}

/// Warnings about runs.
fn run_warnings() -> Vec<RunWarning> {
    let t = || s("public.t");
    let e = || s("canceling statement due to lock timeout (SQLSTATE 55P03)");
    let next = DateTime::from_timestamp(1_767_225_600, 0).map(|at| at.with_timezone(&Berlin));
    let windows = |next| ClosedWindows { windows: vec![s("Mon-Fri 22:00-05:00")], next };
    let (attempt, elapsed_ms) = (3, 75_000);
    let limit = RetryLimit { attempts: Some(30), time_ms: Some(600_000) };
    let undone = |undone, hint: Option<&str>| RunWarning::StepUndone {
        job: s("t"),
        undone,
        error: e(),
        hint: hint.map(s),
    };
    let validate = |table: &str| format!("alter table {table} validate constraint t_q");
    let not_valid = |statements, on_partitions| RunWarning::ForeignKeyNotValid {
        key: s("t_q"),
        table: t(),
        statements,
        on_partitions,
    };
    let stray = |from: Option<&str>, to: Option<&str>| Stray { from: from.map(s), to: to.map(s), rows: 7 };
    let both = vec![stray(Some("2030-01-01"), Some("2031-01-01")), stray(None, None)];
    let add = s("alter table public.t add constraint t_q foreign key (q) references q");
    vec![
        RunWarning::StopRequested,
        RunWarning::CancelRequested,
        RunWarning::WindowClosed { windows: windows(next) },
        RunWarning::WindowClosed { windows: windows(None) },
        RunWarning::Retrying { step: s("swap"), attempt, elapsed_ms, limit, error: e() },
        RunWarning::JobInterrupted {
            job: s("t"),
            attempt,
            elapsed_ms,
            limit: RetryLimit { attempts: None, ..limit },
            error: e(),
        },
        RunWarning::FewerWorkers { workers: 1, error: s("too many clients already") },
        RunWarning::StandbyNotConfirmed { waited_s: 10 },
        RunWarning::TableNotMaintained { table: t(), error: e() },
        undone(Undone::ForeignKeyOnPartitions { key: s("t_q") }, None),
        undone(Undone::ForeignKeyNotValid { key: s("t_q"), table: t() }, Some("correct the rows")),
        undone(Undone::MaterializedViewNotRebuilt { view: s("public.m") }, None),
        undone(Undone::FormerFunction { function: s("public.f(public.t)") }, None),
        undone(Undone::RollbackConstraints, None),
        undone(Undone::RollbackIndex, None),
        RunWarning::StepSkipped { error: e() },
        not_valid(vec![validate("public.t")], false),
        not_valid(vec![validate("..."), add], true),
        RunWarning::NotCarriedOver {
            error: s("a change of public.t cannot be carried over to public.t_new"),
        },
        RunWarning::UnexpectedDifference { difference: s("view public.v was dropped") },
        RunWarning::PartitionBlocked { partition: s("public.t_y2030"), range: s("[2030-01-01, 2031-01-01)") },
        RunWarning::RowsInDefaultPartition { partition: s("public.t_default"), rows: 14, ranges: both },
        RunWarning::RowsInDefaultPartition {
            partition: s("public.t_default"),
            rows: 91,
            ranges: vec![stray(Some("1"), Some("2")); 13],
        },
    ]
}

/// Warnings.
pub(super) fn warnings() -> Vec<Warning> {
    let e = || s("permission denied");
    let mut all: Vec<Warning> = run_warnings().into_iter().map(Warning::from).collect();
    all.extend(
        [
            ThrottleWarning::StandbyUnusable { error: e() },
            ThrottleWarning::UnknownSettings { error: s("unknown setting x") },
            ThrottleWarning::StandbyForgotten { standby: s("b"), gone_ms: 600_000 },
        ]
        .map(Warning::from),
    );
    all.extend(
        [
            LockWarning::StatementCanceled { blocker: blocker() },
            LockWarning::SessionTerminated { blocker: blocker() },
            LockWarning::CancelRefused { error: e() },
            LockWarning::WaitingForSnapshots { holders: holders() },
            LockWarning::MirrorEnded { holders: SnapshotHolders::default() },
            LockWarning::MirrorEnded { holders: holders() },
            LockWarning::MirrorUnavailable { error: e() },
            LockWarning::MirrorStillOn { error: e() },
            LockWarning::RollbackConstraintsLeft { error: e() },
        ]
        .map(Warning::from),
    );
    all.extend(
        [
            ChangeLogWarning::DrainStalled,
            ChangeLogWarning::DrainTooSlow {
                written_per_second: 114_000.0,
                drained_per_second: 10_000.0,
                changes: 2_300_000,
                bytes: 157_286_400,
                growth_per_minute: 6_240_000,
            },
            ChangeLogWarning::CopyStartsOver {
                changes: 2_300_000,
                drained_per_second: 1_000.0,
                drain_s: 2_300,
                copy_s: 20,
            },
            ChangeLogWarning::ChangeLogGrown { percent_of_source: 25 },
            ChangeLogWarning::ChangeLogNotWatched { error: e() },
            ChangeLogWarning::HeapRewritten,
            ChangeLogWarning::TruncatedPartitionGone {
                job: s("t"),
                source: s("public.t"),
                target: s("public.t_old"),
            },
        ]
        .map(Warning::from),
    );
    all.extend(
        [
            KeptWarning::TableNotOwn { table: s("public.t_new") },
            KeptWarning::TableRenamed { table: s("public.t_old"), now: s("public.t_archive") },
            KeptWarning::DetachedPartitionKept { partition: s("public.t_y2024m01") },
            KeptWarning::ColumnNotOwn { column: s("id_new") },
            KeptWarning::ColumnRenamed { column: s("id_old"), now: s("id_archive") },
        ]
        .map(Warning::from),
    );
    all
}

/// Why jobs are throttled.
pub(super) fn holds() -> Vec<Hold> {
    let hold =
        |signal, value, limit, cause| Hold { signal, value, limit, cause, since_s: 0.0, unread: false };
    let unread = |signal, cause| Hold { unread: true, ..hold(signal, 16.0, 15.0, Some(cause)) };
    let dead = |autovacuum, kept_by: Option<&str>| {
        let cause = Cause::DeadRows {
            table: s("public.t"),
            dead_rows: 1_200_000,
            autovacuum,
            kept_by: kept_by.map(s),
            snapshot_age_s: kept_by.map(|_| 7_380.0),
        };
        hold(Signal::DeadShare, 0.5, 0.2, Some(cause))
    };
    let gone = |error: Option<&str>| {
        let cause = Cause::StandbyGone { standby: s("b"), error: error.map(s) };
        hold(Signal::ReplicaGone, 1.0, 600.0, Some(cause))
    };
    let vacuum = Cause::Vacuum { table: s("public.t"), age_transactions: 210_000_000 };
    let (role, b) = (s("app"), Cause::Standby { standby: s("b") });
    vec![
        unread(Signal::Signals, Cause::ServerUnreadable { error: s("the server does not answer") }),
        hold(Signal::Paused, 1.0, 0.0, Some(Cause::Paused { job: s("t") })),
        hold(Signal::BlockedSessions, 1.0, 0.0, Some(Cause::WaitingSession { pid: 17 })),
        gone(None),
        gone(Some("connection refused")),
        hold(Signal::ReplicaLag, 7.25, 5.0, Some(b.clone())),
        hold(Signal::ReplicaLagBytes, 157_286_400.0, 67_108_864.0, Some(b)),
        unread(Signal::ReplicaLag, Cause::NotPermitted { role: role.clone(), standbys: true }),
        hold(Signal::SlotRetained, 3e9, 1_073_741_824.0, Some(Cause::Slot { slot: s("sub") })),
        hold(Signal::Archiver, 1.0, 0.0, Some(Cause::ArchiveCommand { wal_file: s("0000") })),
        hold(Signal::WraparoundVacuum, 1.0, 0.0, Some(vacuum)),
        hold(Signal::ActiveBackends, 7.0, 6.0, Some(Cause::OtherSessions)),
        unread(Signal::ActiveBackends, Cause::NotPermitted { role, standbys: false }),
        hold(Signal::CommitLatency, 61.5, 60.0, Some(Cause::TinyTransaction)),
        dead(true, None),
        dead(false, None),
        dead(false, Some("pid 17")),
        hold(Signal::Query, 12.5, 10.0, Some(Cause::PlanQuery)),
        unread(Signal::Query, Cause::PlanQueryFailed { error: None }),
        unread(Signal::Query, Cause::PlanQueryFailed { error: Some(s("relation \"load\" does not exist")) }),
    ]
}
