//! Optimizations that were tried, and their results. Unless noted otherwise: 2,000,000 rows, PostgreSQL 15, two
//! processors for server, pgstrata and applications, two workers.

/// The headings of [`TRIED`].
pub const TRIED_HEADS: [&str; 3] = ["optimization", "result", ""];

/// The optimizations in the order of the phases of a job.
pub const TRIED: [[&str; 3]; 21] = [
    [
        "chunks with synchronous_commit = off",
        "copy 1.35 s, with it on 1.40 s, four runs each: a copy has only 22 commits",
        "not kept",
    ],
    [
        "inserting a chunk into its partition directly",
        "60,000 rows take 44 ms, through the parent 63 ms; but finding the partition takes half of the difference again, and here no \
         chunk fits into one partition: chunks have 91,000 rows, partitions 83,000",
        "not kept",
    ],
    ["prepared chunk statements", "saves 22 times planning of 0.7 ms in a copy of 1.3 s", "not kept"],
    [
        "building indexes of a partition while others are copied",
        "not tried: copy and index build each use all processors",
        "not kept",
    ],
    [
        "processing the largest partition first in index and analyze",
        "with three quarters of the rows in the last of 24 partitions: index 1.7 s, before 1.9 s; analyze 0.75 s, before 0.88 s",
        "kept",
    ],
    [
        "maintenance_work_mem = 512MB instead of 64MB",
        "three indexes: of a partition 80 ms, before 82 ms; of 2,000,000 rows 2.3 s, before 2.2 s: the setting of the role stays",
        "not kept",
    ],
    [
        "workers vacuum and analyze partitions; statistics of the parent come from a sample of the parent only",
        "whole job 4.9 s, before 6.4 s; the rest is the sample of 30,000 rows per partition, a third of all rows here",
        "kept",
    ],
    [
        "looking up rows in 32 partitions at a time in the drain",
        "a drain over 1,000 partitions takes 1.0 to 1.4 times as long as over 24, before 8.6 times",
        "kept",
    ],
    [
        "looking up rows in 64 partitions at a time, with bounds as parameters",
        "slower than in all partitions at once: a DELETE initializes every partition of its plan",
        "not kept",
    ],
    [
        "verify by ranges of the partition column, reading each side once, with pending rows excluded from the sums",
        "uuid key: 0.7 of the copy's time, before 1.7",
        "kept",
    ],
    [
        "verify hashes column by column, without forming a row",
        "17 % less time; needs the name of each type's hash function",
        "not kept",
    ],
    [
        "verify hashes bytes instead of values",
        "20 to 30 % more time, and equal values can have different bytes",
        "not kept",
    ],
    [
        "verify hashes the whole row, without forming another row",
        "0.74 s for 2,000,000 rows, before 0.66 s",
        "not kept",
    ],
    [
        "smaller last chunks, so that workers end at the same time",
        "copy 1.26 to 1.33 s, before 1.35 s, three runs each",
        "kept",
    ],
    [
        "one worker, if a second one would slow down a tiny transaction",
        "p50 of the application 1.2 times as high as without a job, with two workers 3.5 times; p99 5.5 times, with two workers 9 to \
         15 times; the job takes 9 to 10 s instead of 7 s",
        "kept, if the plan does not set workers",
    ],
    [
        "with one worker, searching for the next chunk only when the last is complete",
        "p99 of the application during the copy 4.8 to 5.2 ms, before 7.2 ms",
        "kept",
    ],
    [
        "short chunks of 50 ms, and 20 MiB of WAL per second",
        "p99 of the application during the copy 8.8 ms: transactions during its bursts wait as long, and the copy takes twelve times \
         as long",
        "not kept",
    ],
    [
        "synchronous_commit = off for chunks",
        "p99 of the application during the copy 7.6 ms, with it on 7.2 ms",
        "not kept",
    ],
    [
        "the effect of a busy processor on the application",
        "p99 1.5 times as high next to one busy loop that does not use the server, 2.5 times next to one session that reads and \
         hashes, 7 times next to two busy loops: with one of two processors busy, a factor below 2 cannot be reached",
        "the limit",
    ],
    [
        "backfill: chunks of 50 ms instead of 100 ms",
        "p99 of the application 9 to 19 ms, before 28 to 49 ms; 2 ms more per chunk",
        "kept",
    ],
    [
        "backfill: a plain UPDATE, which locks rows first only if another session blocks it",
        "0.9 of the rate of the same batches from psql",
        "kept",
    ],
];
