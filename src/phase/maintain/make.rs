//! Creates partitions ahead of time, each modeled on the newest existing one.

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::event::{MaintainNote, RunWarning};
use crate::model::blueprint::{Blueprint, Partition};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::maintained::Maintained;
use crate::model::objects::Role;
use crate::model::partition::{Range, names};
use crate::model::table::Table;
use crate::model::untrusted_code::Access;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::untrusted_code;
use crate::pg::{catalog, objects, store};
use crate::sql::maintain::Sibling;
use crate::sql::{capture, maintain as sql};

use super::Maintenance;
use super::layout::Layout;

/// ATTACH PARTITION scans the default partition while it holds a lock. Writers wait for the duration of the scan, so
/// this limits it.
const ATTACH_SCAN_MS: u32 = 1_000;

/// The outcome for one partition.
enum Made {
    Now,
    /// Another session created it.
    Before,
    /// A row of the default partition belongs in it.
    Blocked,
}

impl Maintenance<'_> {
    /// Creates the partitions in `wanted`, except those whose range contains a row of the default partition.
    pub(super) async fn make_all(
        &self,
        layout: &Layout,
        wanted: &[Range],
        strays: &[Range],
        done: &mut Maintained,
    ) -> Result<()> {
        let (parent, sibling) = self.family(layout).await?;
        untrusted_code::check_recreated(self.client, &[layout.oid, sibling.table.oid], self.trust).await?;
        let table = layout.table.name.as_str();
        let names = names(&self.template, table, &self.scheme, wanted).map_err(Error::failed)?;
        for (range, name) in wanted.iter().zip(names) {
            let name = sibling.table.name.sibling(name);
            let blocked = strays.iter().any(|stray| stray.from < range.to && range.from < stray.to);
            let made = if blocked {
                Made::Blocked
            } else {
                self.make(layout, &parent, &sibling, &name, range).await?
            };
            match made {
                Made::Now => {
                    let (partition, range) = (name.plain(), range.to_string());
                    self.events.note(MaintainNote::PartitionCreated { partition, range });
                    done.created.push(name.plain());
                }
                Made::Before => {}
                Made::Blocked => {
                    let (partition, range) = (name.plain(), range.to_string());
                    self.events.warn(RunWarning::PartitionBlocked { partition, range });
                    done.blocked.push(name.plain());
                }
            }
        }
        Ok(())
    }

    /// Returns the partitioned table and the model for new partitions.
    async fn family(&self, layout: &Layout) -> Result<(Table, Sibling)> {
        let Some(youngest) = layout.parts.last() else {
            return Err(Error::failed(format!(
                "{} has no partition that can serve as a model for new \
                partitions",
                layout.table.plain()
            )));
        };
        if !youngest.plain {
            return Err(Error::failed(format!(
                "partition {} is itself partitioned or is a foreign table, and cannot serve as a model \
                 for new partitions",
                youngest.name.plain()
            )));
        }
        let parent = catalog::table(self.client, layout.oid).await?;
        let mut table = catalog::table(self.client, youngest.oid).await?;
        table.operator_schemas = catalog::operator_schemas(self.client, youngest.oid, self.trust).await?;
        let mut constraints = Vec::new();
        for row in self.client.query(sql::OWN_CONSTRAINTS, &[&youngest.oid, &layout.by.as_str()]).await? {
            let name = Ident::new(row.get::<_, &str>(0));
            if row.get(2) {
                self.events.note(MaintainNote::ConstraintNotCopied {
                    constraint: plain(name.as_str()),
                    partition: youngest.name.plain(),
                    column: plain(layout.by.as_str()),
                });
            } else {
                constraints.push((name, row.get(1)));
            }
        }
        Ok((parent, Sibling { table, constraints }))
    }

    async fn make(
        &self,
        layout: &Layout,
        parent: &Table,
        sibling: &Sibling,
        name: &QualifiedName,
        range: &Range,
    ) -> Result<Made> {
        let statements = sql::create(parent, sibling, name);
        let attach = sql::attach(&layout.table, name, range);
        // Applications may have to wait for the default partition, and briefly for tables that a foreign key
        // references.
        let referenced =
            parent.foreign_keys.iter().chain(&sibling.table.foreign_keys).map(|key| key.references.clone());
        let default: Vec<QualifiedName> = layout.default.iter().cloned().collect();
        let noticed: Vec<QualifiedName> = default.iter().cloned().chain(referenced).collect();
        let lock_retry =
            self.lock_retry(if noticed.is_empty() { vec![layout.table.clone()] } else { noticed });
        let default = self.lock_retry(default);
        let attempt = async || {
            default.look().await?;
            transaction(self.client, READ_COMMITTED, async |client| {
                lock_retry.begin(client, &sql::first_lock(&layout.table)).await?;
                if catalog::find(client, name).await?.is_some() {
                    return Ok(Made::Before);
                }
                all(client, &statements).await?;
                let wider = match self.open_window() {
                    Some(context) => {
                        let b = context.blueprint();
                        all(client, &capture::create_truncate_trigger(&b, name)).await?;
                        Some((context, self.wider(b, name, range)))
                    }
                    None => None,
                };
                client.batch_execute(&format!("set local statement_timeout = {ATTACH_SCAN_MS}")).await?;
                // ATTACH PARTITION reads the default partition.
                untrusted_code::check(client, std::slice::from_ref(&layout.table), self.trust, Access::Reads)
                    .await?;
                match client.batch_execute(&attach).await.map_err(Error::from) {
                    Err(e) if e.is(&SqlState::QUERY_CANCELED) => return Err(too_large(layout)),
                    other => other?,
                }
                for keys in self.key_tables(parent.oid).await? {
                    all(client, &keys.watch(name)).await?;
                }
                if let Some((context, wider)) = wider {
                    objects::record(client, context.job.id, Role::Partition, name).await?;
                    store::extend(client, context.job.id, &wider).await?;
                }
                Ok(Made::Now)
            })
            .await
        };
        let made = lock_retry
            .run(&format!("create partition {}", name.plain()), || self.check_stop(), attempt)
            .await;
        match made {
            Ok((Made::Before, _)) => self.made_before(layout, name, range).await,
            Ok((made, _)) => {
                if let Some(context) = self.open_window() {
                    let wider = self.wider(context.blueprint(), name, range);
                    context.blueprint.replace(wider);
                }
                Ok(made)
            }
            Err(e) if e.is(&SqlState::CHECK_VIOLATION) && layout.default.is_some() => Ok(Made::Blocked),
            Err(e) => Err(e),
        }
    }

    /// The blueprint with the new partition: the job must record every partition that a rollback has to handle.
    fn wider(&self, mut b: Blueprint, name: &QualifiedName, range: &Range) -> Blueprint {
        let (from, to) = (range.from.to_string(), range.to.to_string());
        b.partitions.push(Partition { name: name.clone(), from, to });
        b.partitions.sort_by_key(|p| self.scheme.value(&p.from).ok());
        b
    }

    /// Fails if the existing object with that name is not the wanted partition.
    async fn made_before(&self, layout: &Layout, name: &QualifiedName, range: &Range) -> Result<Made> {
        let now = Layout::read(self.client, &layout.table).await?;
        let (shown, table) = (name.plain(), layout.table.plain());
        match now.parts.iter().find(|part| &part.name == name) {
            Some(part) if part.range.from <= range.from && range.to <= part.range.to => Ok(Made::Before),
            Some(part) => {
                Err(Error::failed(format!("{shown} is the partition for {}, not for {range}", part.range))
                    .hint("rename it; the next run creates the missing partition"))
            }
            None => Err(Error::failed(format!("{shown} exists and is not a partition of {table}"))
                .hint("rename or drop it; the next run creates the partition")),
        }
    }
}

fn too_large(layout: &Layout) -> Error {
    let default = layout.default.as_ref().map(QualifiedName::plain).unwrap_or_default();
    Error::failed(format!(
        "scanning the default partition {default} takes longer than {ATTACH_SCAN_MS} ms, and writes to \
         it would wait for that long"
    ))
    .hint(
        "move its rows to partitions with bounds; or add a CHECK constraint to it that excludes the new \
         ranges: first NOT VALID, then VALIDATE CONSTRAINT",
    )
}
