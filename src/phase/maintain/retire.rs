//! Detaches or drops partitions that are older than the plan's retention, but not while the rollback window is open:
//! the old table still has their rows, and a rollback would bring them back.

use crate::error::{Error, Result};
use crate::event::MaintainNote;
use crate::model::ident::QualifiedName;
use crate::model::maintained::Maintained;
use crate::model::partition::{Bound, Range, horizon};
use crate::model::untrusted_code::Access;
use crate::pg::catalog;
use crate::pg::transaction::{READ_COMMITTED, transaction};
use crate::pg::untrusted_code::untrusted_owner;
use crate::phase::job::locks::LockRetry;
use crate::plan::RetentionAction;
use crate::sql::maintain::PartitionKeys;
use crate::sql::{maintain as sql, objects};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::layout::{BoundedPartition, Layout};
use super::{Maintenance, text};

impl Maintenance<'_> {
    pub(super) async fn retire(
        &self,
        layout: &Layout,
        present: &Range,
        now: Option<Bound>,
        done: &mut Maintained,
    ) -> Result<()> {
        let Some(retention) = self.retention else { return Ok(()) };
        let Some(newest) = self.newest(layout, present, now).await? else { return Ok(()) };
        let horizon = horizon(&self.scheme, &newest, retention.keep).map_err(Error::failed)?;
        let old =
            layout.parts.iter().filter(|part| part.range.to <= horizon && part.range.to <= present.from);
        for part in old {
            let (name, range) = (part.name.plain(), part.range.to_string());
            if self.open_window().is_some() || retention.how == RetentionAction::Report {
                self.events.note(MaintainNote::PartitionExpired {
                    partition: name.clone(),
                    range,
                    keep: retention.keep.to_string(),
                    rollback_possible: self.open_window().is_some(),
                });
                done.expired.push(name);
                continue;
            }
            self.detach(layout, part).await?;
            if retention.how == RetentionAction::Detach {
                self.events.note(MaintainNote::PartitionDetached { partition: name.clone(), range });
                done.detached.push(name);
                continue;
            }
            self.drop(&part.name, part.oid).await?;
            self.events.note(MaintainNote::PartitionDropped { partition: name.clone(), range });
            done.dropped.push(name);
        }
        Ok(())
    }

    /// The value from which the age of a partition is counted: the current time, or the largest number.
    async fn newest(&self, layout: &Layout, present: &Range, now: Option<Bound>) -> Result<Option<Bound>> {
        if now.is_some() {
            return Ok(now);
        }
        let Some(part) = layout.parts.iter().find(|part| &part.range == present) else { return Ok(None) };
        let statement = sql::newest(&part.name, &layout.by);
        let read = async |client: &Client| text(client, &statement).await;
        let newest = self.reading(&part.name, read).await?;
        newest.map(|text| self.scheme.value(&text)).transpose().map_err(Error::failed)
    }

    async fn detach(&self, layout: &Layout, part: &BoundedPartition) -> Result<()> {
        let what = format!("detach partition {}", part.name.plain());
        let tables = [&layout.table, &part.name].into_iter().chain(&layout.default).cloned().collect();
        let lock_retry = self.lock_retry(tables);
        let check_stop = || self.check_stop();
        let keys = self.key_tables(catalog::must_find(self.client, &layout.table).await?).await?;
        if !keys.is_empty() {
            return self.detach_with_keys(layout, part, &keys, &lock_retry).await;
        }
        if layout.default.is_some() {
            let detach = sql::detach(&layout.table, &part.name);
            let attempt = async || {
                lock_retry.look().await?;
                transaction(self.client, READ_COMMITTED, async |client| {
                    lock_retry.begin(client, &sql::first_lock(&layout.table)).await?;
                    Ok(client.batch_execute(&detach).await?)
                })
                .await
            };
            return lock_retry.run(&what, check_stop, attempt).await.map(drop);
        }
        let attempt = async || {
            // An earlier attempt that timed out may have left the detach incomplete.
            let now = Layout::read(self.client, &layout.table).await?;
            let Some(part) = now.parts.iter().find(|p| p.oid == part.oid) else { return Ok(()) };
            let statement = sql::detach_concurrently(&layout.table, &part.name, part.detaching);
            Ok(self.client.batch_execute(&statement).await?)
        };
        lock_retry.run(&what, check_stop, attempt).await.map(drop)
    }

    /// Detaches a partition and removes its keys from the key tables, in one transaction. Writes to the partition wait.
    async fn detach_with_keys(
        &self,
        layout: &Layout,
        part: &BoundedPartition,
        keys: &[PartitionKeys],
        lock_retry: &LockRetry<'_>,
    ) -> Result<()> {
        let (name, table) = (part.name.plain(), std::slice::from_ref(&layout.table));
        // The functions of the key tables belong to the owner, who could have replaced them.
        if let Some(owner) = untrusted_owner(self.client, table, self.trust, Access::Reads).await? {
            return Err(Error::failed(format!(
                "partition {name} was not detached, because its key tables belong to role {owner}, which is not trusted"
            ))
            .hint(format!("run maintain as {owner}, or list {owner} in `trust`")));
        }
        let detach = sql::detach(&layout.table, &part.name);
        let attempt = async || {
            lock_retry.look().await?;
            transaction(self.client, READ_COMMITTED, async |client| {
                lock_retry.begin(client, &sql::first_lock(&layout.table)).await?;
                client.batch_execute(&sql::without_writers(&part.name)).await?;
                for keys in keys {
                    client.batch_execute(&keys.release(&part.name)).await?;
                }
                Ok(client.batch_execute(&detach).await?)
            })
            .await
        };
        let what = format!("detach partition {name}");
        let detached = lock_retry.run(&what, || self.check_stop(), attempt).await;
        detached.map(drop).map_err(|e| match e.is(&SqlState::FOREIGN_KEY_VIOLATION) {
            true => e.hint(format!(
                "rows of other tables reference rows of {name}: delete the referencing rows first"
            )),
            false => e,
        })
    }

    async fn drop(&self, name: &QualifiedName, oid: u32) -> Result<()> {
        let lock_retry = self.lock_retry(vec![name.clone()]);
        // The partition is already detached, so another table may have its name by now.
        let statement = format!("{}; {}", objects::lock(name, oid, "access exclusive"), sql::drop(name));
        let attempt = async || {
            transaction(self.client, READ_COMMITTED, async |client| {
                lock_retry.begin(client, &sql::first_lock(name)).await?;
                Ok(client.batch_execute(&statement).await?)
            })
            .await
        };
        let dropped = lock_retry.run(&format!("drop {}", name.plain()), || self.check_stop(), attempt).await;
        dropped.map(drop).map_err(|e| {
            e.hint(format!("{} is detached and is now a separate table; drop it by hand", name.plain()))
        })
    }
}
