//! The steps of the demo. Each step prints what it will do and why, runs the real engine, and prints the result.

use std::time::Instant;

use crate::stop::Stop;
use tokio_postgres::{Client, NoTls};

use super::figures::{Figures, KeptServer};
use super::server::PrivateServer;
use super::table::{self, Compared, TABLE, WITNESS};
use super::writers::{Lap, WRITERS, Writers};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::{DemoWork, Event, Events, PhaseOutcome};
use crate::model::ident::QualifiedName;
use crate::model::number;
use crate::model::partition::Every;
use crate::pg::connect::Target;
use crate::pg::survey::survey;
use crate::phase::Outcome;
use crate::plan::Plan;

const DATABASE: &str = "demo";

/// The settings of the server. It is temporary, so that durability is turned off.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "256MB"),
    ("work_mem", "64MB"),
    ("maintenance_work_mem", "128MB"),
    ("max_wal_size", "2GB"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// Longer lines of EXPLAIN are truncated, so that they fit into a terminal of 80 columns.
const COLUMNS: usize = 72;

/// Runs all steps. With `keep`, the server is left running.
pub(super) async fn run(events: Events, keep: bool) -> Result<Figures> {
    let began = Instant::now();
    let server = start(&events).await?;
    let mut stage = Stage::set(&server, events).await?;
    let pages_before = stage.problem().await?;
    let plan = stage.plan().await?;
    stage.run(plan).await?;
    let after_swap = stage.swap(pages_before).await?;
    let after_rollback = stage.rollback().await?;
    stage.finalize().await?;
    let tally = stage.writers.stop().await?;
    let end = stage.witness().await?;
    let rows_differing = after_swap.differing + after_rollback.differing + end.differing;
    let kept = keep.then(|| KeptServer { connect: server.connect_hint(DATABASE), stop: server.stop_hint() });
    if keep {
        server.keep()?;
    }
    Ok(Figures::new(began.elapsed().as_secs_f64(), tally, end.rows, rows_differing, kept))
}

async fn start(events: &Events) -> Result<PrivateServer> {
    let title = "pgstrata demo: partition a live table, roll back, and swap again";
    show(events, title, "");
    show(
        events,
        "1. A private server",
        "The server runs in a temporary directory, listens only on a Unix socket, and is\n\
         removed when the demo ends. Nothing else on this machine is changed.",
    );
    let began = Instant::now();
    let phase = events.phase_started(DATABASE, DemoWork::StartServer);
    let server = tokio::task::spawn_blocking(|| PrivateServer::start(SETTINGS))
        .await
        .map_err(|e| Error::failed("failed to start the server").caused_by(e))??;
    let directory = server.socket_dir().display().to_string();
    events.phase_done(DATABASE, phase, PhaseOutcome::ServerStarted { directory }, began.elapsed());
    Ok(server)
}

fn show(events: &Events, title: &str, text: &str) {
    events.send(Event::Story { title: title.to_owned(), text: text.to_owned() });
}

/// Connects as an ordinary client. The engine creates its own sessions.
async fn connect(dsn: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The table, the active writers, and the engine.
struct Stage {
    events: Events,
    client: Client,
    target: Target,
    engine: Engine,
    writers: Writers,
    month_query: String,
}

impl Stage {
    /// Creates the table and starts the writers.
    async fn set(server: &PrivateServer, events: Events) -> Result<Self> {
        show(
            &events,
            "2. A table in use",
            &format!(
                "From now until the end, {WRITERS} applications insert, update and delete rows of\n\
                 {TABLE}, and move some to another month. In the same transactions,\n\
                 they make the same changes to {WITNESS}, a plain table that\n\
                 pgstrata does not touch. If pgstrata loses, duplicates or damages a row, the two\n\
                 tables differ."
            ),
        );
        let began = Instant::now();
        let phase = events.phase_started(DATABASE, DemoWork::FillDemoTable { table: TABLE.to_owned() });
        let admin = connect(&server.dsn("postgres")).await?;
        admin.batch_execute(&format!("create database {DATABASE}")).await?;
        let dsn = server.dsn(DATABASE);
        let client = connect(&dsn).await?;
        let rows = table::create(&client).await?;
        let bytes = table::bytes(&client).await?;
        events.phase_done(DATABASE, phase, PhaseOutcome::DemoTableFilled { rows, bytes }, began.elapsed());
        let writers = Writers::start(&dsn).await?;
        let target = Target::from_dsn(&dsn)?;
        let engine = Engine::new(target.clone(), events.clone(), Stop::default());
        Ok(Self { events, client, target, engine, writers, month_query: table::month_query() })
    }

    fn show(&self, title: &str, text: &str) {
        show(&self.events, title, text);
    }

    /// Shows the cost of queries on the table. Returns the number of pages that the query for a month reads.
    async fn problem(&self) -> Result<u64> {
        self.show(
            "3. The problem",
            "A query for one month reads the whole table. Deleting an old month takes even longer\n\
             and leaves bloat behind.",
        );
        self.explain().await
    }

    /// Shows the execution plan of the query for a month. Returns the number of pages that it read.
    async fn explain(&self) -> Result<u64> {
        let explained = table::explain(&self.client, &self.month_query).await?;
        let mut text = format!("  explain (analyze, buffers) {}\n", self.month_query.replace('\n', "\n    "));
        for line in &explained.lines {
            let start: String = line.chars().take(COLUMNS).collect();
            let more = if start.len() < line.len() { "..." } else { "" };
            text.push_str(&format!("    {start}{more}\n"));
        }
        self.show("", &text);
        Ok(explained.pages)
    }

    async fn plan(&self) -> Result<Plan> {
        let session = self.target.connect(self.target.application_name()).await?;
        let name = QualifiedName::parse(TABLE).map_err(Error::usage)?;
        let every: Every = "month".parse().map_err(Error::usage)?;
        let text = survey(&session, &name, Some("created_at"), Some(every)).await?.text();
        let settings: String = text
            .lines()
            .skip_while(|line| line.starts_with('#') || line.is_empty())
            .map(|line| format!("  {line}").trim_end().to_owned() + "\n")
            .collect();
        self.show(
            &format!("4. pgstrata plan {TABLE} --by created_at --every month -o plan.toml"),
            &format!(
                "This command reads the table and drafts a plan, a file to review, edit and keep.\n\
                 (Not shown here: the comments at the top, which describe the table.)\n{settings}"
            ),
        );
        Plan::parse(&text, "the drafted plan")
    }

    async fn run(&self, plan: Plan) -> Result<()> {
        self.show(
            "5. pgstrata run plan.toml",
            "This command builds the partitioned table next to the table in use. Triggers log the\n\
             keys of changed rows, and the rows are copied in short chunks, each in its own\n\
             transaction. Then the pending changes are applied, and both tables are compared by\n\
             count and hash. The table stays in use all the time. If the job is stopped or killed, the\n\
             next run continues where it was.",
        );
        self.writers.lap();
        self.engine.run(plan, false).await?;
        self.show("", &applications(self.writers.lap()));
        Ok(())
    }

    async fn swap(&self, pages_before: u64) -> Result<Compared> {
        self.show(
            &format!("6. pgstrata swap {TABLE}"),
            "This command applies the last changes, verifies the tables once more, then locks both\n\
             for a moment and exchanges the names. If it cannot acquire the lock\n\
             within 200 ms, it gives up and retries later, so that no application waits long.",
        );
        self.exchange(self.engine.swap(TABLE)).await?;
        self.show("", "The same query now:");
        let pages = self.explain().await?;
        self.show(
            "",
            &format!(
                "  pages read    {} instead of {}: one partition, not the whole table",
                number::count(pages),
                number::count(pages_before)
            ),
        );
        self.witness().await
    }

    async fn rollback(&self) -> Result<Compared> {
        self.show(
            &format!("7. pgstrata rollback {TABLE}"),
            "Triggers have logged every change since the swap, so the rollback is the same exchange\n\
             in reverse, and it keeps everything that was written since.",
        );
        self.exchange(self.engine.rollback(TABLE)).await?;
        self.witness().await
    }

    async fn finalize(&self) -> Result<()> {
        self.show(
            &format!("8. pgstrata swap {TABLE}; pgstrata finalize {TABLE} --now"),
            "Swap again, then end the job: finalize drops the old table and everything else that\n\
             pgstrata created, except the partitioned table. Normally this happens days later,\n\
             as set in the plan.",
        );
        self.exchange(self.engine.swap(TABLE)).await?;
        self.engine.finalize(TABLE, true).await.map(drop)
    }

    /// Swaps or rolls back, and shows how long the lock was held and how long transactions took.
    async fn exchange(&self, work: impl Future<Output = Result<Outcome>>) -> Result<()> {
        self.writers.lap();
        let outcome = work.await?;
        let meanwhile = applications(self.writers.lap());
        if let Some(swapped) = outcome.swapped {
            self.show("", &format!("  lock held     {:.0} ms\n{meanwhile}", swapped.held_ms));
        }
        Ok(())
    }

    /// Compares the table with the witness, and reports the result.
    async fn witness(&self) -> Result<Compared> {
        let began = Instant::now();
        let phase = self.events.phase_started(DATABASE, DemoWork::CompareWitness);
        let compared = table::compare(&self.client).await?;
        let outcome = PhaseOutcome::WitnessCompared { rows: compared.rows, differing: compared.differing };
        self.events.phase_done(DATABASE, phase, outcome, began.elapsed());
        Ok(compared)
    }
}

/// `  applications  4,151 transactions meanwhile, 0 failed, the longest took 36 ms`.
fn applications(lap: Lap) -> String {
    format!(
        "  applications  {} meanwhile, {} failed, the longest took {}",
        number::counted(lap.transactions, "transaction"),
        number::count(lap.failures),
        number::duration(lap.longest)
    )
}
