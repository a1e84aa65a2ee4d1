//! Tries the update of a job that updates rows on a few of them, with the application's triggers and constraints: in transactions that
//! are rolled back.

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::design::Design;
use crate::model::filling::Filling;
use crate::model::finding::Finding;
use crate::model::ident::Ident;
use crate::plan::check::{self, Writing};

use super::preflight::{Preflight, writing};
use super::{row_trial, sample};

impl Preflight {
    /// Adds the findings of a trial of the job's update. Does nothing for a job that updates no rows.
    ///
    /// # Errors
    /// The connection was lost. If the server rejects the update, that is a finding.
    pub async fn with_update_trial(mut self, client: &Client) -> Result<Self> {
        let Some(design) = &self.design else { return Ok(self) };
        let found = tried(client, design).await?;
        if !found.is_empty() {
            self.findings.extend(found);
            self.design = self.design.filter(|_| self.findings.errors() == 0);
        }
        Ok(self)
    }
}

async fn tried(client: &Client, design: &Design) -> Result<Vec<Finding>> {
    let Some(filling) = design.planned().updates().filter(|f| !f.only_finishes()) else {
        return Ok(Vec::new());
    };
    let table = &filling.table;
    let fires = writing(client, table.oid).await?;
    let blocks = row_trial::blocks(client, table.oid).await?;
    match sample::brief(client, &filling, blocks, &unchanged(&filling, &fires)).await {
        Ok(sample) => Ok(check::sampled(table, &sample)),
        Err(e) if e.sqlstate().is_some() => Ok(check::sample_untried(table, e.message())),
        Err(e) => Err(e),
    }
}

/// The columns that the trial sets to their present values: those that the job sets or, if none of them exists yet, a column
/// that no trigger lists in `UPDATE OF`.
fn unchanged<'a>(f: &'a Filling, writing: &Writing) -> Vec<&'a Ident> {
    let existing: Vec<&Ident> =
        f.set.iter().map(|(name, _)| name).filter(|name| f.table.column(name).is_some()).collect();
    if !existing.is_empty() {
        return existing;
    }
    let named = |name: &Ident| writing.triggers.iter().any(|trigger| trigger.columns.contains(name));
    let free = f.table.written_columns().filter(|c| c.identity != "a" && !named(&c.name));
    let (key, other): (Vec<_>, Vec<_>) = free.map(|c| &c.name).partition(|name| f.key.contains(name));
    other.into_iter().chain(key).take(1).collect()
}
