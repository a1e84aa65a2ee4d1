//! What was tried to reach the goals, and what came of it: 2,000,000 rows where nothing else is said, PostgreSQL 15, two
//! processors for server, tool and applications, two workers where no other number is named.

/// What each row of [`TRIED`] holds.
pub const TRIED_HEADS: [&str; 3] = ["tried", "what came of it", ""];

/// In the order in which a job comes to it.
pub const TRIED: [[&str; 3]; 21] = [
    [
        "chunks with synchronous_commit = off",
        "copy 1.35 s, and 1.40 s with it on, four runs each: a copy is 22 commits",
        "not kept",
    ],
    [
        "a chunk written to its partition directly",
        "60,000 rows take 44 ms, and 63 ms through the parent; but their partition has to be read first, which takes half of that \
         again, and here no chunk falls into one: chunks have 91,000 rows, partitions 83,000",
        "not kept",
    ],
    ["chunk statements prepared", "22 plans of 0.7 ms in a copy of 1.3 s", "not kept"],
    [
        "indexes of a partition while others are copied",
        "not tried: copy and index each keep every processor busy",
        "not kept",
    ],
    [
        "the largest partition first, in index and analyze",
        "with three of four rows in the last of 24: index 1.7 s, and 1.9 before, analyze 0.75 s, and 0.88 before",
        "kept",
    ],
    [
        "maintenance_work_mem = 512MB in place of 64MB",
        "three indexes of a partition 80 ms and 82 ms, of 2,000,000 rows 2.3 s and 2.2 s: it stays what the role has",
        "not kept",
    ],
    [
        "workers vacuum and analyze partitions, the parent's own statistics come from a sample of it alone",
        "whole job 4.9 s, and 6.4 s before; what is left is ANALYZE's 30,000 rows of each partition, a third of all rows here",
        "kept",
    ],
    [
        "places looked up in 32 partitions at a time",
        "a drain over 1,000 partitions takes 1.0 to 1.4 times as long as over 24, and 8.6 times before",
        "kept",
    ],
    [
        "in 64 at a time, their ends as parameters",
        "longer than in all at once: a DELETE sets up every partition of its plan",
        "not kept",
    ],
    [
        "verify by ranges of the partition column, each side once, pending rows taken out of the sums",
        "uuid key: 0.7 of the copy's time, and 1.7 before",
        "kept",
    ],
    [
        "verify's hash column by column, no row formed",
        "17 % less; needs the name of each type's hash function",
        "not kept",
    ],
    [
        "verify's hash of bytes in place of values",
        "20 to 30 % more, and equal values can have unlike bytes",
        "not kept",
    ],
    [
        "verify's hash of the row as a whole, none formed for it",
        "0.74 s for 2,000,000 rows, and 0.66 s",
        "not kept",
    ],
    [
        "last chunks smaller, so that workers end together",
        "copy 1.26 to 1.33 s, and 1.35 s before, three runs each",
        "kept",
    ],
    [
        "one worker, where a second one would be felt by a tiny transaction",
        "half of the applications' transactions take 1.2 times as long as idle, and 3.5 times with two workers; p99 5.5 times, and \
         9 to 15 times; the job takes 9 to 10 s in place of 7 s",
        "kept, where the plan gives no number",
    ],
    [
        "the next chunk looked for when the last is done, where there is one worker",
        "p99 during the copy 4.8 to 5.2 ms, and 7.2 ms before",
        "kept",
    ],
    [
        "short chunks for applications, 50 ms, and 20 MiB of WAL a second",
        "p99 during the copy 8.8 ms: who comes in its bursts pays as much, and it takes twelve times as long",
        "not kept",
    ],
    [
        "synchronous_commit = off for chunks, for applications",
        "p99 during the copy 7.6 ms, and 7.2 ms with it on",
        "not kept",
    ],
    [
        "what a processor costs that is busy with something else",
        "their p99 is 1.5 times idle beside one loop that touches no server, 2.5 times beside one session that reads and hashes, \
         7 times beside two loops: with one of two processors taken, twice cannot be installed",
        "the limit",
    ],
    [
        "backfill: chunks of 50 ms in place of 100, for applications",
        "their p99 9 to 19 ms, and 28 to 49 ms before; 2 ms more a chunk",
        "kept",
    ],
    [
        "backfill: a plain UPDATE, and rows locked first only where somebody is in its way",
        "0.9 of the rate of the same batches from psql",
        "kept",
    ],
];
