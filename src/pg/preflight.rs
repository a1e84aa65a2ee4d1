//! Stub.
use crate::error::{Error, Result};
use crate::model::blueprint::{Blueprint, Partition};
use crate::model::finding::Findings;
use crate::model::ident::Ident;
use crate::model::partition::names;
use crate::phase::partitions::{scheme, template};
use crate::plan::Plan;
use tokio_postgres::Client;
/// x
pub struct Preflight {
    /// x
    pub findings: Findings,
    /// x
    pub blueprint: Option<Blueprint>,
    /// x
    pub rows_estimated: i64,
}
/// # Errors
/// x
pub async fn preflight(client: &Client, plan: &Plan) -> Result<Preflight> {
    let oid = super::catalog::must_find(client, plan.table()).await?;
    let table = super::catalog::table(client, oid).await?;
    let by = Ident::new(plan.by());
    let base = table.column(&by).unwrap().base_type.clone();
    let s = scheme(plan, &base)?;
    let row = client
        .query_one(&format!("select min({by})::text, max({by})::text from {}", table.name), &[])
        .await?;
    let v = |t: Option<String>| s.value(&t.unwrap()).map_err(Error::failed);
    let ranges = s.cover(&v(row.get(0))?, &v(row.get(1))?, plan.ahead()).map_err(Error::failed)?;
    let n = names(&template(plan)?, table.name.name.as_str(), &s, &ranges).map_err(Error::failed)?;
    let pk = table.indexes.iter().find(|i| i.constraint == "p").unwrap().clone();
    let b = Blueprint {
        job: plan.name().into(),
        by,
        key_index: pk.name,
        key: pk.columns.unwrap(),
        partitions: ranges
            .iter()
            .zip(n)
            .map(|(r, n)| Partition {
                name: table.name.sibling(n),
                from: r.from.to_string(),
                to: r.to.to_string(),
            })
            .collect(),
        default: plan
            .default_partition()
            .then(|| table.name.sibling(table.name.name.with_suffix("_default"))),
        drop_unique: vec![],
        table,
    };
    Ok(Preflight {
        findings: Findings::new(vec![]),
        blueprint: Some(b),
        rows_estimated: super::catalog::size(client, oid).await?.0,
    })
}
