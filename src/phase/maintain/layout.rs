//! Reads the partitions of a partitioned table from the catalog.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::partition::{ColumnKind, Every, Range, Scheme, ends};
use crate::model::shell::word;
use crate::pg::catalog;
use crate::sql::maintain as sql;

/// A partition with bounds.
#[derive(Debug, Clone)]
pub struct BoundedPartition {
    /// Schema and name.
    pub name: QualifiedName,
    /// Its oid.
    pub oid: u32,
    /// Its range.
    pub range: Range,
    /// Whether it is a plain table: neither partitioned itself nor foreign.
    pub plain: bool,
    /// Whether DETACH PARTITION CONCURRENTLY was interrupted for it.
    pub detaching: bool,
}

/// A partitioned table.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Schema and name.
    pub table: QualifiedName,
    /// Its oid.
    pub oid: u32,
    /// The partition column.
    pub by: Ident,
    /// Its type.
    pub kind: ColumnKind,
    /// Partitions, in order, except one without a lower bound.
    pub parts: Vec<BoundedPartition>,
    /// The default partition.
    pub default: Option<QualifiedName>,
    /// `server_version_num`.
    pub server_version: i32,
}

impl Layout {
    /// Reads the partitions.
    ///
    /// # Errors
    /// The table does not exist, or cannot be maintained: it is not partitioned by range, by one column of a
    /// supported type.
    pub async fn read(client: &Client, table: &QualifiedName) -> Result<Self> {
        let name = table.plain();
        let refuse = |what: &str| Error::usage(format!("{name} {what}"));
        let oid = catalog::find(client, table)
            .await?
            .ok_or_else(|| Error::usage(format!("table {name} does not exist")))?;
        let row = client.query_opt(sql::KEY, &[&oid]).await?;
        let row = row.ok_or_else(|| {
            refuse("is not partitioned").hint(format!("to partition it: `pgstrata plan {}`", word(&name)))
        })?;
        if row.get::<_, &str>(0) != "r" {
            return Err(refuse(
                "is partitioned by list or by hash, so no partitions can be created ahead \
                of time",
            ));
        }
        let (columns, by): (i32, Option<String>) = (row.get(1), row.get(2));
        let Some(by) = by.filter(|_| columns == 1) else {
            return Err(refuse(
                "is partitioned by more than one column or by an expression, which `maintain` does not \
                 support",
            ));
        };
        let sql_type: &str = row.get(3);
        let kind = ColumnKind::from_sql(sql_type).ok_or_else(|| {
            refuse(&format!(
                "is partitioned by a column of type {sql_type}, which cannot be divided into \
                intervals"
            ))
        })?;
        let mut layout = Self {
            table: table.clone(),
            oid,
            by: Ident::new(by),
            kind,
            parts: Vec::new(),
            default: None,
            server_version: row.get(4),
        };
        layout.read_partitions(client).await?;
        Ok(layout)
    }

    async fn read_partitions(&mut self, client: &Client) -> Result<()> {
        // The interval does not matter: the scheme only parses values.
        let every = if self.is_time() { Every::Days(1) } else { Every::Integers(1) };
        let reader = Scheme::new(self.kind, every, chrono_tz::Tz::UTC).map_err(Error::failed)?;
        for row in client.query(sql::PARTITIONS, &[&self.oid]).await? {
            let name = QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
            let Some((from, to)) = ends(row.get(4)) else {
                self.default = Some(name);
                continue;
            };
            if from == "MINVALUE" {
                continue;
            }
            let value = |end: &str| match end {
                "MAXVALUE" => reader.value("maxvalue"),
                _ => reader.value(end),
            };
            let range = value(from).and_then(|from| Ok(Range { from, to: value(to)? }));
            let range = range.map_err(|e| {
                Error::usage(format!(
                    "the bounds of partition {} could not be parsed: \
                    {e}",
                    name.plain()
                ))
            })?;
            let plain = row.get::<_, &str>(3) == "r";
            self.parts.push(BoundedPartition { name, oid: row.get(2), range, plain, detaching: row.get(5) });
        }
        self.parts.sort_by(|a, b| a.range.cmp(&b.range));
        Ok(())
    }

    /// The ranges of the partitions, in order.
    pub fn ranges(&self) -> Vec<Range> {
        self.parts.iter().map(|part| part.range.clone()).collect()
    }

    /// Whether the partition column has times or dates, which follow the clock.
    pub fn is_time(&self) -> bool {
        crate::plan::partitioning::is_time(self.kind)
    }

    /// The end of the last partition.
    pub fn until(&self) -> String {
        self.parts.last().map_or_else(String::new, |last| last.range.to.to_string())
    }
}
