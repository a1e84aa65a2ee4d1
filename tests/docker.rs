//! The examples in docker/, as far as they run without a container engine. The tests parse the compose file and run its
//! commands, environments and scripts against local servers, and run the commands of the crontab and of the systemd
//! unit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pgstrata::demo::server::PrivateServer;
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::cluster::{SETTINGS, connect};
use crate::support::events;
use crate::support::process::ended;
use crate::support::standby::Standby;
use crate::support::wait::until;

fn file(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn texts(yaml: &Yaml) -> Vec<String> {
    yaml.as_vec().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The environment of a service. `${NAME:-default}` is replaced by the default; `here` maps host names of the compose
/// network to their addresses on this machine.
fn environment(service: &Yaml, here: &[(&str, &str)]) -> Vec<(String, String)> {
    let default = |text: &str| match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(variable) => variable.split_once(":-").unwrap().1.to_owned(),
        None => here.iter().find(|(name, _)| *name == text).map_or(text, |(_, here)| here).to_owned(),
    };
    let pairs = service["environment"].as_hash().unwrap();
    pairs
        .iter()
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), default(value.as_str().unwrap())))
        .collect()
}

/// The file that a service mounts at `inside`, copied to a directory that the server's user can read.
fn mounted(service: &Yaml, inside: &str, server: &PrivateServer) -> PathBuf {
    let from = texts(&service["volumes"]).into_iter().find_map(|volume| {
        let (from, to) = volume.strip_suffix(":ro")?.split_once(':')?;
        (to == inside).then(|| folder().join(from))
    });
    let from = from.unwrap_or_else(|| panic!("nothing is mounted at {inside}"));
    let copy = server.socket_dir().join(from.file_name().unwrap());
    std::fs::write(&copy, std::fs::read(&from).unwrap()).unwrap();
    copy
}

#[tokio::test]
async fn the_compose_file_shows_a_job_throttled_by_lag() {
    let compose = YamlLoader::load_from_str(&file("compose.yml")).unwrap().remove(0);
    let services = &compose["services"];
    let server = PrivateServer::start(SETTINGS).unwrap();
    let socket_dir = server.socket_dir().display().to_string();
    let here = [("primary", socket_dir.as_str())];
    let psql = server.command("psql").get_program().to_owned();
    let bin = Path::new(&psql).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());

    let primary = &services["primary"];
    let mut env = environment(primary, &here);
    let dbname = env.iter().find(|(name, _)| name == "POSTGRES_DB").unwrap().1.clone();
    env.retain(|(name, _)| name != "ROWS");
    env.extend(
        [("ROWS", "1500000"), ("PATH", &path), ("PGHOST", &socket_dir)].map(|(n, v)| (n.into(), v.into())),
    );
    env.push(("PGDATA".into(), server.data_dir().display().to_string()));
    connect(&server.dsn("postgres")).await.batch_execute(&format!("create database {dbname}")).await.unwrap();
    let setup = mounted(primary, "/docker-entrypoint-initdb.d/primary.sh", &server);
    let made = server.command("sh").arg(setup).envs(env).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let standby = &services["standby"];
    let mut env = environment(standby, &here);
    env.extend([("PATH".into(), path), ("PGDATA".into(), format!("{socket_dir}/standby"))]);
    let mut command: Vec<OsString> = texts(&standby["command"]).iter().map(OsString::from).collect();
    command[1] = mounted(standby, command[1].to_str().unwrap(), &server).into();
    command.extend(["-c".into(), "port=5511".into()]);
    let standby = Standby::run(&server, "standby", 5511, &command, &env).await;

    for service in ["primary", "standby"] {
        let check = texts(&services[service]["healthcheck"]["test"]);
        let mut healthy = server.command(&check[1]);
        healthy.args(&check[2..]).args([
            "-h",
            &socket_dir,
            "-p",
            if service == "primary" { "5432" } else { "5511" },
        ]);
        assert!(healthy.output().unwrap().status.success(), "{service}");
    }
    tool(&services["pgstrata"], &server, &dbname, &standby).await;
}

/// Runs the command of the `pgstrata` service. Replica lag throttles the job, which resumes once the apply
/// delay is removed.
async fn tool(service: &Yaml, server: &PrivateServer, dbname: &str, standby: &Standby) {
    let env = environment(service, &[]);
    assert!(env.contains(&("PGDATABASE".to_owned(), dbname.to_owned())));
    let plans =
        texts(&service["volumes"])[0].strip_suffix(":/plans:ro").map(|from| folder().join(from)).unwrap();
    let arguments = texts(&service["command"])
        .iter()
        .map(|a| a.replace("/plans", plans.to_str().unwrap()))
        .collect::<Vec<_>>();
    let mut run = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgstrata"));
    run.args(arguments).env("DATABASE_URL", server.dsn(dbname)).kill_on_drop(true);
    run.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = run.spawn().unwrap();
    let client = connect(&server.dsn(dbname)).await;
    let holds = "select exists (select from pgstrata.pace where holds @> '[{\"signal\": \"replica_lag_s\", \"limit\": 10.0}]')";
    until(holds, async || client.query_one(holds, &[]).await.is_ok_and(|row| row.get(0))).await;
    let admin = standby.client().await;
    admin.batch_execute("alter system set recovery_min_apply_delay = 0").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    let output = ended(run).await.ok().stderr;
    assert!(
        output.contains("throttled: replica_lag_s is ") && output.contains("standby standby"),
        "{output}"
    );
}

#[test]
fn the_image_is_built_in_stages_and_runs_as_nobody() {
    let dockerfile = file("Dockerfile");
    let lines: Vec<&str> =
        dockerfile.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    assert!(last > 0 && lines[0].starts_with("FROM rust:") && lines[0].ends_with(" AS build"));
    // The final image has no shell, so it cannot have RUN instructions.
    assert!(lines[last] == "FROM scratch" && lines[last..].iter().all(|line| !line.starts_with("RUN ")));
    assert!(lines[last..].contains(&"USER 65532:65532"));
    assert!(lines.iter().any(|line| line.starts_with("ENTRYPOINT [\"/")));
    for line in lines.iter().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let from: Vec<&str> = line.split(' ').skip(1).collect();
        for source in &from[..from.len() - 1] {
            assert!(folder().parent().unwrap().join(source).exists(), "{line}");
        }
    }
}

/// The arguments of pgstrata in a line of an example, without the job's name and the plan.
fn command(line: &str) -> String {
    let words = line.split_whitespace().skip_while(|word| !word.ends_with("pgstrata")).skip(1);
    words
        .filter(|word| *word != "events" && *word != "/etc/pgstrata/events.toml")
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn the_lines_of_the_crontab_and_the_unit_run_without_output() {
    let (crontab, unit, timer) = (file("crontab"), file("pgstrata.service"), file("pgstrata.timer"));
    let events = events::lab().await;
    let scheduled = crontab.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<String> =
        unit.lines().filter(|line| line.starts_with("ExecStart=")).chain(scheduled).map(command).collect();
    insta::assert_snapshot!(all.join("\n"), @r"
    run --for 7h --quiet
    run --until 05:00 --quiet
    run --quiet
    sync --quiet
    ");
    // The run that starts a job prints its findings.
    let first = events.ran(&all[0]).await.ok();
    assert!(first.stdout.starts_with("warning[key_widened]") && first.stderr.is_empty(), "{}", first.stderr);
    for command in &all {
        let ran = events.ran(command).await.ok();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{command}");
    }
    assert!(
        unit.contains("SuccessExitStatus=6 7\n")
            && timer.contains("\nOnCalendar=Mon..Fri 22:00 Europe/Berlin\n")
    );
}
