//! Windows and deadlines: a run ends between two chunks with exit code 6, and the next run resumes the job.

use super::{Slow, ended};

#[tokio::test]
async fn a_window_that_closes_ends_the_run_and_the_next_run_resumes_when_it_opens() {
    let job = Slow::new("timezone = 'Europe/Berlin'\n").await;
    let run = job.copying().await;
    // A minute of the week two days ago.
    let shut = job
        .one("select to_char(now() at time zone 'Europe/Berlin' - interval '2 days', 'Dy HH24:00-HH24:01')")
        .await;
    let set = job.db.pgstrata(&["set", "events", &format!("windows={shut}")]).await.ok();
    drop(set);
    let ran = ended(run).await.exits(6);
    assert!(ran.stderr.contains("error: stopped because the time is outside the windows"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the next window opens "), "{}", ran.stderr);
    // Outside of the window, no chunk is begun.
    let before = job.chunks().await;
    let ran = ended(job.start(&[])).await.exits(6);
    assert!(
        ran.stderr.contains("error: the job did not run: the time is outside the windows"),
        "{}",
        ran.stderr
    );
    assert_eq!(job.chunks().await, before);
    job.ok("set windows=00:00-24:00").await;
    let run = job.start(&[]);
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn a_deadline_ends_the_run_between_chunks() {
    let job = Slow::new("").await;
    let ran = ended(job.start(&["--for", "15s"])).await.exits(6);
    assert!(
        ran.stderr.contains("stopped because its time limit was reached; job events is capturing"),
        "{}",
        ran.stderr
    );
    let copied = job.chunks().await;
    assert!(copied > 0);
    // One minute from now, in the time zone of the plan.
    let soon = job.one("select to_char(now() at time zone 'UTC' + interval '1 minute', 'HH24:MI')").await;
    let ran = ended(job.start(&["--until", &soon])).await.exits(6);
    assert!(ran.stderr.contains("its time limit was reached"), "{}", ran.stderr);
    assert!(job.chunks().await > copied);
    let twice =
        "select count(*) from (select after from pgstrata.chunks group by after having count(*) > 1) twice";
    assert_eq!(job.db.count(twice).await, 0);
    let run = job.start(&["--for", "2h"]);
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn an_overlapping_start_is_quiet() {
    let job = Slow::new("").await;
    let run = job.copying().await;
    let ran = ended(job.start(&["--quiet"])).await.exits(7);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    job.finish(run).await;
}
