//! A full disk: the job stops and keeps its state, and reports how much space it uses and how to free it.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cluster::Database;
use crate::support::oracle;

/// A small tmpfs, which is unmounted when dropped.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Mounts a file system of `mib` MiB that the server of `db` can write to, if this machine permits it.
    fn new(db: &Database, mib: u32) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("disk-").tempdir_in("/tmp").unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            println!("skipped: a tmpfs cannot be mounted on this machine");
            return None;
        }
        let disk = Self { dir };
        let server = std::fs::metadata(db.socket_dir()).unwrap();
        std::fs::create_dir(disk.tablespace()).unwrap();
        for path in [disk.dir.path(), &disk.tablespace()] {
            chown(path, Some(server.uid()), Some(server.gid())).unwrap();
        }
        Some(disk)
    }

    fn tablespace(&self) -> PathBuf {
        self.dir.path().join("space")
    }

    fn fill(&self) -> PathBuf {
        let file = self.dir.path().join("filler");
        // Write until the file system is full.
        let dd =
            Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", file.display())).output().unwrap();
        assert!(!dd.status.success(), "the file system did not become full");
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// A database with a table in a tablespace on a small file system.
async fn on_small_disk(name: &str, mib: u32) -> Option<(Database, Disk)> {
    let db = Database::new().await;
    let disk = Disk::new(&db, mib)?;
    let location = disk.tablespace().display().to_string();
    db.execute(&format!("create tablespace {name} location '{location}'")).await;
    db.execute(&format!(
        "create table t (id bigint primary key using index tablespace {name}, at timestamptz not null, v int not null, note text)
           tablespace {name};
         insert into t select i, '2024-01-01'::timestamptz + i * interval '1 minute', i, repeat('x', 200)
           from generate_series(1, 60000) i; create index t_v on t (v) tablespace {name}; analyze t"
    ))
    .await;
    Some((db, disk))
}

/// Drops the table and the tablespace before the file system is unmounted.
async fn clean(db: &Database, name: &str) {
    db.execute("drop table t cascade").await;
    db.execute(&format!("drop tablespace {name}")).await;
}

/// Asserts that the output reports a full disk and suggests the command.
fn reports_full_disk(output: &str, command: &str) {
    for part in ["(SQLSTATE 53100)", "a disk of the server is full", "the job's state is kept", command] {
        assert!(output.contains(part), "{part}: {output}");
    }
}

fn remove(file: &Path) {
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_copy_that_does_not_fit_reports_what_abort_frees() {
    let Some((db, _disk)) = on_small_disk("stuck_copy", 32).await else { return };
    let plan = db.plan("name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    let plan = plan.to_str().unwrap();
    let output = db.pgstrata(&["run", plan]).await.exits(1).stderr;
    reports_full_disk(&output, "`pgstrata abort job` frees the space that the job uses: ");
    assert!(output.contains(" MiB in public.t_new and "), "{output}");
    db.pgstrata(&["abort", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from t").await, 60_000);
    clean(&db, "stuck_copy").await;
}

#[tokio::test]
async fn a_job_resumes_after_a_full_disk_gets_space_again() {
    let Some((db, disk)) = on_small_disk("stuck_swap", 96).await else { return };
    let plan = db.plan("name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    db.execute("update t set v = v + 1").await;
    let file = disk.fill();
    let output = db.pgstrata(&["sync", "job"]).await.exits(1).stderr;
    reports_full_disk(&output, "`pgstrata finalize --now job` frees the space that is kept for a rollback: ");
    remove(&file);
    db.pgstrata(&["sync", "job"]).await.ok();
    oracle::compare(&db, "t", "t_old").await;
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    clean(&db, "stuck_swap").await;
}

#[tokio::test]
async fn a_retype_and_a_backfill_on_a_full_disk() {
    let Some((db, disk)) = on_small_disk("stuck_rows", 48).await else { return };
    let retype = db.plan("name = 'r'\ntable = 't'\nkind = 'retype'\n[retype]\ncolumn = 'v'\nto = 'bigint'\n");
    let backfill = db.plan(
        "name = 'b'\ntable = 't'\nkind = 'backfill'\n[backfill]\nset = { note = 'repeat(t.v::text, 60)' }\n",
    );
    let file = disk.fill();
    let output = db.pgstrata(&["run", retype.to_str().unwrap()]).await.exits(1).stderr;
    reports_full_disk(&output, "`pgstrata abort r` frees ");
    db.pgstrata(&["abort", "r"]).await.ok();
    let output = db.pgstrata(&["run", backfill.to_str().unwrap()]).await.exits(1).stderr;
    reports_full_disk(&output, "`pgstrata abort b` ends the job but frees no disk space");
    remove(&file);
    db.pgstrata(&["abort", "b"]).await.ok();
    assert_eq!(db.count("select count(*) from t").await, 60_000);
    clean(&db, "stuck_rows").await;
}
