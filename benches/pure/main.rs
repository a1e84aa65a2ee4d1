//! Benchmarks of code that does not need a server and that runs often or on many values: the bounds of partitions, the
//! size of the next chunk, and the statements of a chunk.

use std::error::Error;
use std::hint::black_box;

use criterion::Criterion;

use pgstrata::model::blueprint::{Blueprint, Direction};
use pgstrata::model::key::KeyRange;
use pgstrata::model::partition::{ColumnKind, Every, Scheme, Template, names};
use pgstrata::model::sizer::ChunkSizer;
use pgstrata::sql::copy;
use pgstrata::sql::drain::{self, Batch};

/// The blueprint of a job with 24 monthly partitions, the key and three other indexes.
const BLUEPRINT: &str = include_str!("blueprint.json");

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    bounds(&mut criterion)?;
    sizer(&mut criterion);
    statements(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Bounds are expensive in a time zone with daylight saving time, because each needs a lookup in the time zone
/// database.
fn bounds(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let scheme = Scheme::new(ColumnKind::TimestampTz, Every::Days(1), chrono_tz::Europe::Zurich)?;
    let (oldest, newest) = (scheme.value("2024-01-01 00:00:00+00")?, scheme.value("2026-09-26 00:00:00+00")?);
    let template = Template::parse(Template::default_for(Every::Days(1)))?;
    criterion.bench_function("bounds of 1,000 days", |b| {
        b.iter(|| scheme.cover(black_box(&oldest), black_box(&newest), 0));
    });
    let ranges = scheme.cover(&oldest, &newest, 0)?;
    criterion.bench_function("names of 1,000 days", |b| {
        b.iter(|| names(&template, "events", &scheme, black_box(&ranges)));
    });
    Ok(())
}

fn sizer(criterion: &mut Criterion) {
    let mut sizer = ChunkSizer::new(5_000, 10, 200_000, 500.0);
    criterion.bench_function("size of the next chunk", |b| {
        b.iter(|| {
            let rows = sizer.rows();
            sizer.observe(rows, black_box(rows as f64 / 100.0));
        });
    });
}

fn statements(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let b: Blueprint = serde_json::from_str(BLUEPRINT)?;
    let range = KeyRange { after: Some(vec!["1".to_owned()]), through: Some(vec!["20000".to_owned()]) };
    criterion.bench_function("statement of a chunk", |bencher| {
        bencher.iter(|| copy::keyset_chunk(&b, black_box(&range)));
    });
    criterion.bench_function("statements of a batch of the drain", |bencher| {
        bencher.iter(|| {
            let forward = black_box(Direction::Forward);
            [drain::clear(&b, forward, Batch::Blocks), drain::fill(&b, forward, Batch::Blocks)]
        });
    });
    Ok(())
}
