//! pgstrata: runs the release binary as users do, and reads its events.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use pgstrata::model::blueprint::Blueprint;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::figure::{Chunk, Phase, Run};
use super::server::Server;
use super::table::{TABLE, Table};

/// The name of the job.
const JOB: &str = "bench";
/// The column that a backfill adds.
pub const FILLED: &str = "filled";
/// The interval at which the peak memory of the process is read. The system records the peak, so only the end may be
/// missed.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// A job of pgstrata.
#[derive(Debug)]
pub struct Job<'a> {
    server: &'a Server,
    dir: TempDir,
    plan: String,
    /// Whether the job has a swap; a backfill has none.
    pub swaps: bool,
}

/// A command of pgstrata that succeeded.
#[derive(Debug)]
struct Ended {
    began: SystemTime,
    seconds: f64,
    phases: Vec<Phase>,
    memory_mb: Option<f64>,
}

impl<'a> Job<'a> {
    /// A job that creates exactly the partitions of `table`, with a fixed number of workers or an automatic one. `more`
    /// is appended to section `[copy]` of the plan.
    pub fn new(server: &'a Server, table: &Table, workers: Option<usize>, more: &str) -> Result<Self> {
        let (every, to) = (table.unit, table.end().context("the end of the table is out of range")?);
        let plan = format!(
            "name = \"{JOB}\"\ntable = \"{TABLE}\"\n[partition]\nby = \"created_at\"\nevery = \"1 {every}\"\n\
             from = \"2024-01-01\"\nto = \"{to}\"\n[copy]\n{}{more}",
            fixed(workers)
        );
        Ok(Self { server, dir: tempfile::tempdir()?, plan, swaps: true })
    }

    /// A job that fills the new column [`FILLED`], with a fixed number of workers or an automatic one.
    pub fn backfill(server: &'a Server, workers: Option<usize>) -> Result<Self> {
        let plan = format!(
            "name = \"{JOB}\"\nkind = \"backfill\"\ntable = \"{TABLE}\"\n[backfill]\n\
             add = {{ {FILLED} = \"numeric\" }}\nset = {{ {FILLED} = \"t.n * 2\" }}\nwhere = \"t.{FILLED} is null\"\n\
             [copy]\n{}",
            fixed(workers)
        );
        Ok(Self { server, dir: tempfile::tempdir()?, plan, swaps: false })
    }

    /// Runs the job until it is verified.
    pub async fn run(&self, name: &str) -> Result<Run> {
        let path = self.dir.path().join("plan.toml");
        std::fs::write(&path, &self.plan)?;
        let ended = self.command(&["run", &path.display().to_string()]).await?;
        let began_s = ended.began.duration_since(UNIX_EPOCH)?.as_secs_f64();
        let rows = self
            .server
            .client()
            .await?
            .query(
                "select coalesce(seen, rows), ms, extract(epoch from done_at)::float8 from pgstrata.chunks
                 where step <> 'late' and job_id = (select max(id) from pgstrata.jobs) order by done_at",
                &[],
            )
            .await?;
        let chunks =
            rows.iter().map(|r| Chunk { rows: r.get(0), ms: r.get(1), at_s: r.get::<_, f64>(2) - began_s });
        Ok(Run {
            name: name.to_owned(),
            seconds: ended.seconds,
            phases: ended.phases,
            chunks: chunks.collect(),
            memory_mb: ended.memory_mb,
        })
    }

    /// Runs another command of the job; returns its phases.
    pub async fn then(&self, command: &str) -> Result<Vec<Phase>> {
        Ok(self.command(&[command, JOB]).await?.phases)
    }

    /// Finalizes a swapped job, which drops the old table.
    pub async fn finalize(&self) -> Result<()> {
        self.command(&["finalize", JOB, "--now"]).await.map(drop)
    }

    /// Aborts the job, which keeps the source and drops the objects of the job.
    pub async fn abort(&self) -> Result<()> {
        self.command(&["abort", JOB]).await.map(drop)
    }

    /// How long the last swap or rollback held its lock, in milliseconds.
    pub async fn lock_held_ms(&self) -> Result<f64> {
        let held = "select (detail::jsonb ->> 'held_ms')::float8 from pgstrata.events
            where what = 'lock held' order by id desc limit 1";
        self.server.value(held).await
    }

    async fn command(&self, args: &[&str]) -> Result<Ended> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgstrata"));
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.args(args).arg("--json").env("DATABASE_URL", self.server.dsn()).kill_on_drop(true);
        let (began, clock) = (SystemTime::now(), Instant::now());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, mut stderr) =
            (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
        let pid = child.id().context("no process")?;
        let stderr = tokio::spawn(async move {
            let mut text = String::new();
            stderr.read_to_string(&mut text).await.map(|_| text)
        });
        let mut lines = BufReader::new(stdout).lines();
        let mut ticks = tokio::time::interval(MEMORY_INTERVAL);
        let (mut phases, mut memory_mb) = (Vec::new(), None);
        loop {
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => phases.extend(phase(&line, clock.elapsed().as_secs_f64())),
                    None => break,
                },
                _ = ticks.tick() => memory_mb = peak_memory_mb(pid).or(memory_mb),
            }
        }
        let status = child.wait().await?;
        let seconds = clock.elapsed().as_secs_f64();
        let stderr = stderr.await??;
        if !status.success() {
            bail!("pgstrata {} ended with {status}: {}", args.join(" "), stderr.trim());
        }
        Ok(Ended { began, seconds, phases, memory_mb })
    }
}

fn fixed(workers: Option<usize>) -> String {
    workers.map_or(String::new(), |n| format!("workers = {n}\n"))
}

/// The blueprint of the last job, from which pgstrata's statements are rendered.
pub async fn blueprint(server: &Server) -> Result<Blueprint> {
    let kept: Value = server.value("select blueprint from pgstrata.jobs order by id desc limit 1").await?;
    Ok(serde_json::from_value(kept)?)
}

/// The phase, if the line is an event for its end.
fn phase(line: &str, now_s: f64) -> Option<Phase> {
    let event: Value = serde_json::from_str(line).ok()?;
    if event["event"] != "phase_done" {
        return None;
    }
    let seconds = event["duration_ms"].as_f64()? / 1000.0;
    let name = event["phase"].as_str()?.to_owned();
    Some(Phase { name, from_s: now_s - seconds, seconds, chunk_rows: event["chunks"]["chunk_rows"].as_u64() })
}

/// The peak memory of a running process; none if the system has no /proc.
fn peak_memory_mb(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kb| kb / 1024.0)
}
