//! The implementation of the commands.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;
use tracing::Instrument;

use crate::cli::{Cli, Command, Dsn, PlanOptions};
use crate::clock;
use crate::demo;
use crate::engine::{Engine, preflight, script};
use crate::error::{Error, Kind, Result};
use crate::event::{Events, JobNote, RunWarning};
use crate::model::design::Design;
use crate::model::explanation;
use crate::model::ident::QualifiedName;
use crate::model::number;
use crate::model::partition::Every;
use crate::model::shell::word;
use crate::model::state::State;
use crate::model::status::Status;
use crate::model::verify_report::{RowsChecked, VerifyReport};
use crate::pg::connect::Target;
use crate::pg::preflight::Preflight;
use crate::pg::sample::sample;
use crate::pg::{checklist, status, store, survey};
use crate::phase::{self, Outcome, Verdict};
use crate::plan::check::each_carried;
use crate::plan::survey::pair;
use crate::plan::{Plan, assignment};
use crate::report::{self, Checked, Output, StatusWatch};
use crate::sql::printable::printable;
use crate::stop::{Stop, interrupted};

/// How often `status --watch` refreshes.
const REFRESH: Duration = Duration::from_secs(1);

/// Runs a command to its end.
///
/// # Errors
/// The error of the command. Its kind determines the exit code.
pub fn run(cli: Cli, output: Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed("failed to start the runtime").caused_by(e))?;
    runtime.block_on(dispatch(cli, output))
}

async fn dispatch(cli: Cli, output: Output) -> Result<()> {
    let target = || Target::from_env(cli.everywhere.dsn.as_ref().map(Dsn::as_str));
    match &cli.command {
        Command::Plan(options) => plan(&target()?, options, output).await,
        Command::Check { plan, sample } => {
            check(&target()?, plan, cli.everywhere.verbose > 0 || output.json, *sample, output).await
        }
        Command::Sql { plan } => sql(&target()?, plan, output).await,
        Command::Status { job, watch } => show_status(&target()?, job.as_deref(), *watch, output).await,
        Command::Explain { code } => explain(code.as_deref(), output),
        Command::Demo { keep } => demo::run(*keep, output).await,
        command => drive(&target()?, command, output).await,
    }
}

/// Explains one code of `check`, or lists all of them.
fn explain(code: Option<&str>, output: Output) -> Result<()> {
    let Some(code) = code else {
        report::print_explanations(&output, explanation::all());
        return Ok(());
    };
    let Some(explanation) = explanation::of(code) else {
        let error = Error::usage(format!("no finding has the code {code}"));
        return Err(error.hint("`pgstrata explain` lists all codes"));
    };
    report::print_explanation(&output, explanation);
    Ok(())
}

/// Runs a command that drives a job. Events are printed as they occur, and Ctrl-C stops the job between chunks.
async fn drive(target: &Target, command: &Command, output: Output) -> Result<()> {
    let (events, receiver) = Events::channel();
    let printer = report::spawn(output, receiver);
    let stop = Stop::default();
    let engine = Engine::new(target.clone(), events.clone(), stop.clone());
    let signals = tokio::spawn(watch_signals(engine.clone(), events.clone(), stop.clone()));
    let result = act(&engine, command, &events, &stop).await;
    signals.abort();
    let _ = signals.await;
    drop(engine);
    drop(events);
    let _ = printer.await;
    match result? {
        CommandResult::Nothing => {}
        CommandResult::Rows(looked) => report::print_result(&output, &looked, || looked.to_string()),
        CommandResult::Verdict(report) => {
            report::print_verdict(&output, &report);
            if !report.verified {
                return Err(phase::differs(&report));
            }
        }
        CommandResult::NextStep(job, keeps_in_sync, state) if !output.quiet && !output.json => {
            report::print_text(&what_next(&job, &keeps_in_sync, state));
        }
        CommandResult::NextStep(..) => {}
    }
    Ok(())
}

/// The result of a command, printed after its events.
enum CommandResult {
    Nothing,
    Verdict(Box<VerifyReport>),
    Rows(RowsChecked),
    NextStep(String, String, State),
}

async fn act(engine: &Engine, command: &Command, events: &Events, stop: &Stop) -> Result<CommandResult> {
    let next =
        |job: &str, outcome: Outcome| CommandResult::NextStep(job.to_owned(), String::new(), outcome.state);
    let of = |job: &str| tracing::debug_span!("job", name = job);
    match command {
        Command::Run { plan, swap, limit, until } => {
            let plan = read_plan(plan)?;
            let name = plan.name().to_owned();
            let keeps_in_sync = plan.task().purpose().keeps_in_sync(&word(&name));
            let deadline = deadline(*limit, *until, plan.throttle().timezone);
            let outcome = tokio::select! {
                outcome = engine.run(plan, *swap).instrument(of(&name)) => outcome?,
                never = watch_deadline(deadline, events, stop) => match never {},
            };
            Ok(CommandResult::NextStep(name, keeps_in_sync, outcome.state))
        }
        Command::Pause { job } => {
            engine.set(job, &[("paused", Some("true"))]).await?;
            events.note(JobNote::JobPaused { job: job.clone() });
            Ok(CommandResult::Nothing)
        }
        Command::Resume { job } => {
            engine.set(job, &[("paused", None)]).await?;
            events.note(JobNote::JobNotPaused { job: job.clone() });
            Ok(CommandResult::Nothing)
        }
        Command::Set { job, settings } => {
            let settings = settings.iter().map(|written| assignment(written)).collect::<Result<Vec<_>>>()?;
            let settings: Vec<_> = settings.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
            engine.set(job, &settings).await?;
            events.note(JobNote::SettingsStored { job: job.clone(), settings: settings.len() as u64 });
            Ok(CommandResult::Nothing)
        }
        Command::Verify { job } => Ok(match engine.verify(job).instrument(of(job)).await? {
            Verdict::Sides(report) => CommandResult::Verdict(Box::new(report)),
            Verdict::Rows(looked) => CommandResult::Rows(looked),
        }),
        Command::Swap { job } => Ok(next(job, engine.swap(job).instrument(of(job)).await?)),
        Command::Rollback { job } => Ok(next(job, engine.rollback(job).instrument(of(job)).await?)),
        Command::Sync { job } => engine.sync(job).instrument(of(job)).await.map(|_| CommandResult::Nothing),
        Command::Maintain { job, table } => {
            match table {
                Some(table) => {
                    let table = QualifiedName::parse(table).map_err(Error::usage)?;
                    engine.maintain_table(&table).await?;
                }
                None => engine.maintain(job.as_deref()).await?,
            }
            Ok(CommandResult::Nothing)
        }
        Command::Finalize { job, now } => {
            engine.finalize(job, *now).instrument(of(job)).await.map(|_| CommandResult::Nothing)
        }
        Command::Abort { job } => engine.abort(job).instrument(of(job)).await.map(|_| CommandResult::Nothing),
        _ => Err(Error::usage("this command does not run a job")),
    }
}

/// The time at which `--for` or `--until` ends a run.
fn deadline(limit: Option<Duration>, until: Option<NaiveTime>, zone: Tz) -> Option<DateTime<Utc>> {
    let now = clock::now();
    if let Some(limit) = limit {
        return Some(now + limit);
    }
    let today = now.with_timezone(&zone).date_naive();
    let moments = today
        .iter_days()
        .take(3)
        .filter_map(|day| zone.from_local_datetime(&day.and_time(until?)).earliest());
    moments.map(|moment| moment.to_utc()).find(|moment| *moment > now)
}

/// Requests a stop between chunks at the deadline, if there is one. Runs concurrently with the work.
async fn watch_deadline(deadline: Option<DateTime<Utc>>, events: &Events, stop: &Stop) -> Infallible {
    if let Some(deadline) = deadline {
        // Sleep in short steps and compare with the wall clock, because the machine may be suspended or the clock set.
        while let Ok(left) = (deadline - clock::now()).to_std() {
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
        events.note(JobNote::DeadlineReached);
        stop.request("because its time limit was reached");
    }
    std::future::pending().await
}

/// The first signal requests a stop between chunks. The second one terminates the job's sessions.
async fn watch_signals(engine: Engine, events: Events, stop: Stop) {
    interrupted().await;
    events.warn(RunWarning::StopRequested);
    stop.request("as requested");
    interrupted().await;
    events.warn(RunWarning::CancelRequested);
    let _ = engine.end_sessions().await;
}

/// The next step for the user.
fn what_next(job: &str, keeps_in_sync: &str, state: State) -> String {
    let typed = word(job);
    match state {
        State::Verified => {
            format!("job {job} is verified; {keeps_in_sync}; to swap: `pgstrata swap {typed}`\n")
        }
        State::Swapped => format!(
            "job {job} is swapped; to roll back without losing writes: `pgstrata rollback {typed}`; to drop the \
             old table or column once `keep_old` has passed: `pgstrata finalize {typed}`\n"
        ),
        State::RolledBack => format!(
            "job {job} is rolled back; to swap again: `pgstrata swap {typed}`; to remove everything that \
             it created: `pgstrata abort {typed}`\n"
        ),
        State::Finalized => format!("job {job} is done\n"),
        _ => format!("job {job} is {state}\n"),
    }
}

fn read_plan(path: &Path) -> Result<Plan> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::usage(format!("failed to read plan {name}"))
            .caused_by(e)
            .hint("`pgstrata plan TABLE -o FILE` writes a plan")
    })?;
    Plan::parse(&text, &name)
}

async fn plan(target: &Target, options: &PlanOptions, output: Output) -> Result<()> {
    let PlanOptions { table, by, every, backfill, set, add, retype, output: file } = options;
    let table = QualifiedName::parse(table).map_err(Error::usage)?;
    let every: Option<Every> = every.as_deref().map(|e| e.parse().map_err(Error::usage)).transpose()?;
    let pairs = |all: &[String], option| all.iter().map(|one| pair(one, option)).collect::<Result<Vec<_>>>();
    let (set, add) = (pairs(set, "--set")?, pairs(add, "--add")?);
    let retype = retype.as_deref().map(|written| pair(written, "--retype")).transpose()?;
    let session = target.connect(target.application_name()).await?;
    let survey = match &retype {
        Some((column, to)) => survey::retype(&session, &table, column, to).await?,
        None if *backfill => survey::backfill(&session, &table, &set, &add).await?,
        None => survey::survey(&session, &table, by.as_deref(), every).await?,
    };
    if let Some(path) = file {
        std::fs::write(path, survey.text())
            .map_err(|e| Error::usage(format!("failed to write {}", path.display())).caused_by(e))?;
    }
    report::print_survey(&output, &table.plain(), &survey, file.as_deref());
    Ok(())
}

/// `each`: also reports every object that is carried over. `rows`: this number of rows of a backfill is filled and
/// rolled back.
async fn check(target: &Target, plan: &Path, each: bool, rows: Option<u32>, output: Output) -> Result<()> {
    let plan = read_plan(plan)?;
    if let (Some(_), Ok(backfill)) = (rows, plan.backfill())
        && backfill.set.is_empty()
    {
        return Err(Error::usage("--sample does not apply to a plan that sets no column")
            .hint("remove --sample: the job only adds constraints and indexes"));
    }
    if let (Some(_), Err(_)) = (rows, plan.backfill()) {
        return Err(Error::usage(format!(
            "--sample does not apply to a plan of kind \"{}\"",
            plan.task().kind()
        ))
        .hint("remove --sample: it is for backfills only"));
    }
    let session = target.connect(target.application_name()).await?;
    let mut preflight = preflight(&session, &plan).await?;
    // A requested sample includes everything that the trial update shows.
    if rows.is_none() {
        preflight = preflight.with_update_trial(&session).await?;
    }
    let checklist = checklist::read(&session, &plan).await?;
    let Preflight { mut findings, design, rows_estimated, rows_to_fill } = preflight;
    let design = design.as_ref();
    match (design.and_then(Design::filling), rows) {
        (Some(filling), Some(rows)) => {
            let sample = sample(&session, filling, rows, rows_to_fill, rows_estimated as f64).await?;
            let checked =
                Checked { findings: &findings, checklist: checklist.as_ref(), sample: Some(&sample) };
            report::print_checked(&output, &checked);
            if sample.is_bad() {
                return Err(Error::new(
                    Kind::Preflight,
                    "some rows of the sample cannot be filled correctly; nothing was changed",
                ));
            }
            return Ok(());
        }
        _ if each => findings.extend(design.and_then(Design::blueprint).into_iter().flat_map(each_carried)),
        _ => {}
    }
    let checked = Checked { findings: &findings, checklist: checklist.as_ref(), sample: None };
    report::print_checked(&output, &checked);
    match findings.errors() {
        0 => Ok(()),
        n => Err(Error::new(
            Kind::Preflight,
            format!("the check found {}; nothing was changed", number::counted(n as u64, "error")),
        )),
    }
}

async fn sql(target: &Target, plan: &Path, output: Output) -> Result<()> {
    let plan = read_plan(plan)?;
    let session = target.connect(target.application_name()).await?;
    let preflight = preflight(&session, &plan).await?;
    let Some(design) = preflight.design else {
        report::print_findings(&output, &preflight.findings);
        let why = if preflight.findings.errors() > 0 { "has errors" } else { "could not be tested" };
        return Err(Error::new(
            Kind::Preflight,
            format!("the statements of the plan cannot be printed, because it {why}"),
        ));
    };
    let sections = script(&session, &plan, &design).await?;
    let mut text = String::new();
    for section in sections {
        // A line break in a name would end the comment.
        text.push_str(&printable(&format!("-- {}", section.title.replace('\n', "?"))));
        text.push('\n');
        for statement in section.statements {
            text.push_str(&format!("{};\n", printable(&statement)));
        }
        text.push('\n');
    }
    report::print_text(&text);
    Ok(())
}

async fn show_status(target: &Target, job: Option<&str>, watch: bool, output: Output) -> Result<()> {
    let session = target.connect(target.application_name()).await?;
    let look = async || -> Result<Vec<Status>> {
        let mut all = Vec::new();
        for stored in store::jobs(&session, job).await? {
            // Show only the newest job of each name.
            if !all.iter().any(|s: &Status| s.job == stored.name) {
                all.push(status::of(&session, &stored).await?);
            }
        }
        match job {
            Some(name) if all.is_empty() => {
                Err(Error::usage(format!("this database has no job named {name}"))
                    .hint("`pgstrata status` lists all jobs"))
            }
            _ => Ok(all),
        }
    };
    if !watch {
        let all = look().await?;
        match (job, all.first()) {
            (Some(_), Some(one)) => report::print_status(&output, one),
            _ => report::print_statuses(&output, &all),
        }
        return Ok(());
    }
    let mut screen = StatusWatch::default();
    loop {
        screen.print(&output, &look().await?);
        tokio::select! {
            () = interrupted() => return Ok(()),
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}
