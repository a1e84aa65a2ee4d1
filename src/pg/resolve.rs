//! Resolves the names in the plan's SQL, once, when the plan is checked: in a transaction that is rolled back, with
//! temporary objects.

use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::filling::Filling;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::plan_sql::{Join, PlanSql};
use crate::plan::check::{Named, Refusal};
use crate::sql::plan_sql::{self as sql, AssignedType, PlanView};
use crate::sql::trial::{type_and_collation, whole};

use super::refused::refusal;
use super::transaction::READ_COMMITTED;

/// The message for SQL that the server cannot print without changing its meaning.
const NOT_FAITHFUL: &str = "the server stores this SQL in a form that it would resolve differently: \
    NULLIF, IS DISTINCT FROM, CASE and row comparisons look up operators by name";

/// Takes settings that the plan does not specify from the session.
///
/// # Errors
/// The server returned an error.
pub async fn settings(
    client: &Client,
    plan: &mut PlanSql,
    key: &[&crate::model::table::Column],
) -> Result<()> {
    for row in client.query(sql::SESSION, &[]).await? {
        let (name, value): (&str, Option<String>) = (row.get(0), row.get(1));
        let value = value.unwrap_or_default();
        let field = match name {
            "TimeZone" => &mut plan.time_zone,
            "DateStyle" => &mut plan.date_style,
            "IntervalStyle" => &mut plan.interval_style,
            "search_path" => &mut plan.search_path,
            "default_text_search_config" => &mut plan.text_search,
            _ => {
                plan.locale.push((name.to_owned(), value));
                continue;
            }
        };
        if field.is_empty() {
            *field = value;
        }
    }
    // Functions that run with other privileges must not find the temporary objects of a writer's session first.
    plan.search_path += ", pg_temp";
    // Such keys are read as text together with the plan's SQL, and are sent again under our own settings.
    let by_style = |c: &&crate::model::table::Column| {
        c.base_type.contains("interval") || c.base_type.contains("range") || c.base_type.ends_with("[]")
    };
    if key.iter().any(by_style) {
        let ours = PlanSql::default();
        (plan.time_zone, plan.date_style, plan.interval_style) =
            (ours.time_zone, ours.date_style, ours.interval_style);
    }
    Ok(())
}

/// Replaces the search path by its schemas, without those in which a role that is not trusted has something: what it
/// created while it had the privilege is still found there. `"$user"` becomes a name, whatever role runs the SQL later.
///
/// # Errors
/// The server returned an error.
pub async fn search_path(client: &Client, plan: &mut PlanSql, trust: &[String]) -> Result<()> {
    client.batch_execute(READ_COMMITTED).await?;
    let path = client.query_one(sql::SOUND_PATH, &[&plan.search_path, &trust]).await;
    client.batch_execute("rollback").await?;
    plan.search_path = path?.get(0);
    Ok(())
}

/// Resolves a backfill's SQL; returns the objects that it names, or the server's error about it.
///
/// # Errors
/// The connection was lost.
pub async fn backfill(
    client: &Client,
    f: &mut Filling,
    trust: &[String],
) -> Result<std::result::Result<Named, Refusal>> {
    client.batch_execute(READ_COMMITTED).await?;
    let resolved = in_transaction(client, f, trust).await;
    client.batch_execute("rollback").await?;
    match resolved {
        Ok((resolved, named)) => {
            *f = resolved;
            Ok(Ok(named))
        }
        Err(e) => refusal(e).map(Err),
    }
}

async fn in_transaction(client: &Client, f: &Filling, trust: &[String]) -> Result<(Filling, Named)> {
    let mut r = f.clone();
    let mark = sql::mark(&texts(f));
    let resolver = Resolver { client, mark: &mark };
    client.batch_execute(&sql::settings(&f.sql)).await?;
    let (mut relation, mut rows) = (f.table.oid, whole(f));
    let mut defaults = Vec::new();
    let adds = f.missing().next().is_some();
    if adds {
        client.batch_execute(&sql::stand_in(f, &mark)).await?;
        let name = format!("{mark}rows");
        relation = client.query_one(sql::TEMPORARY, &[&name]).await?.get(0);
        rows = format!("pg_temp.{name}");
        for column in f.missing() {
            if let Some(default) = &column.default {
                client.batch_execute(&sql::set_default(&mark, &column.name, default)).await?;
                defaults.push(column.name.clone());
            }
        }
    }
    client.batch_execute(OURS).await?;
    let types = kept(client, relation).await?;
    for column in &mut r.add {
        let Some((_, collation, kept)) = types.iter().find(|(name, ..)| *name == column.name) else {
            continue;
        };
        let stated = type_and_collation(column).1.is_some();
        column.sql_type = match collation.as_ref().filter(|_| stated) {
            Some(collation) => format!("{} collate {collation}", kept.sql_type),
            None => kept.sql_type.clone(),
        };
    }
    let mut oids = Vec::new();
    for name in defaults {
        let row = client.query_one(sql::DEFAULT, &[&relation, &name.as_str()]).await?;
        oids.push(row.get::<_, u32>(1));
        if let Some(column) = r.add.iter_mut().find(|c| c.name == name) {
            column.default = row.get(0);
        }
    }
    let of = |name: &Ident| types.iter().find(|(one, ..)| one == name).map(|(.., kept)| kept);
    let mut expressions: Vec<String> = f
        .set
        .iter()
        .map(|(name, value)| of(name).map_or_else(|| value.clone(), |kept| sql::kept(value, kept)))
        .collect();
    expressions.extend(f.filter.iter().cloned());
    let view = PlanView { mark: &mark, rows: &rows, join: f.from.as_ref(), expressions: &expressions };
    let only = if !adds && !f.is_partitioned() { "ONLY " } else { "" };
    let printed: String = client.query_one(sql::PRINTED, &[&relation]).await?.get(0);
    let done = resolver.view(&view, &format!("{only}{printed}"), &mut r.sql).await?;
    oids.push(done.rule);
    let named = named(client, (f.table.oid, trust), &oids, &r.sql).await?;
    r.sql.names_others = done.subquery || f.from.is_some() || !named.objects.is_empty();
    let mut expressions = done.expressions.into_iter();
    for ((_, value), resolved) in r.set.iter_mut().zip(&mut expressions) {
        *value = resolved;
    }
    r.filter = f.filter.as_ref().and(expressions.next());
    r.from = done.join;
    Ok((r, named))
}

/// Every text of the plan in which one of our names could occur.
fn texts(f: &Filling) -> impl Iterator<Item = &str> + Clone {
    let set = f.set.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let join = f.from.iter().map(|join| join.behind.as_str());
    let columns = f.table.columns.iter().map(|c| c.name.as_str());
    set.chain(join).chain(f.filter.as_deref()).chain(columns).chain([f.table.name.name.as_str()])
}

/// Only the names of the system and of temporary objects are found without a schema, and values that the server
/// prints have the same meaning under any settings.
pub(super) const OURS: &str = "set local search_path = pg_catalog, pg_temp; set local timezone = 'UTC'; \
    set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres'";

/// The columns of a relation: name, collation, type.
async fn kept(client: &Client, relation: u32) -> Result<Vec<(Ident, Option<String>, AssignedType)>> {
    let read = |row: &Row| {
        let kept = AssignedType {
            sql_type: row.get(1),
            domain: row.get(3),
            limited: row.get(4),
            array: row.get(5),
            modifier: row.get(6),
        };
        (Ident::new(row.get::<_, &str>(0)), row.get(2), kept)
    };
    Ok(client.query(sql::KEPT, &[&relation]).await?.iter().map(read).collect())
}

/// Resolves views within one transaction.
struct Resolver<'a> {
    client: &'a Client,
    mark: &'a str,
}

/// A view as the server printed it.
struct PrintedView {
    text: String,
    calls: Option<String>,
    rule: u32,
    subquery: bool,
}

/// The result for a view's SQL.
struct Done {
    expressions: Vec<String>,
    join: Option<Join>,
    rule: u32,
    subquery: bool,
}

impl Resolver<'_> {
    /// Creates a view under the current settings, and returns the text that the server prints for it under ours.
    async fn made(&self, view: &PlanView<'_>, name: &str, path: &str) -> Result<PrintedView> {
        self.client.batch_execute(path).await?;
        self.client.batch_execute(&view.create(name)).await?;
        self.client.batch_execute(OURS).await?;
        let row = self.client.query_one(sql::WRITTEN, &[&format!("{}{name}", self.mark)]).await?;
        Ok(PrintedView { text: row.get(0), calls: row.get(1), rule: row.get(2), subquery: row.get(3) })
    }

    /// Resolves the names in a view's SQL, and verifies that the printed text has the same meaning: the same
    /// functions and operators in the same order.
    async fn view(&self, view: &PlanView<'_>, printed: &str, plan: &mut PlanSql) -> Result<Done> {
        let first = self.made(view, "asked", &sql::settings(plan)).await?;
        let not_faithful = || Error::failed(NOT_FAITHFUL).code("0A000");
        let (expressions, join) = view.parts(&first.text, printed).ok_or_else(not_faithful)?;
        let again = PlanView { expressions: &expressions, join: join.as_ref(), ..*view };
        let mut resolved = PlanSql { resolved: true, lookup: Vec::new(), ..plan.clone() };
        for (name, lookup) in [("again", Vec::new()), ("searched", plan.lookup.clone())] {
            // A name in the plan or in what it is joined with may be the same as ours by chance.
            let behind = join.as_ref().map(|join| &join.behind);
            if expressions.iter().chain(behind).any(|one| one.contains(self.mark)) {
                break;
            }
            resolved.lookup = lookup;
            self.client.batch_execute("savepoint again").await?;
            match self.made(&again, name, &sql::settings(&resolved)).await {
                Ok(second) if second.calls == first.calls => {
                    *plan = resolved;
                    return Ok(Done { expressions, join, rule: first.rule, subquery: first.subquery });
                }
                Ok(_) => {}
                Err(e) if e.sqlstate().is_some() => {
                    self.client.batch_execute("rollback to again").await?;
                }
                Err(e) => return Err(e),
            }
        }
        Err(not_faithful())
    }
}

/// The objects to which rules, defaults, constraints and indexes of a job refer, on the table with that oid; and the
/// roles that could replace them. The roles are those that the plan trusts.
///
/// # Errors
/// The server returned an error.
pub async fn named(
    client: &Client,
    (table, trust): (u32, &[String]),
    oids: &[u32],
    plan: &PlanSql,
) -> Result<Named> {
    client.batch_execute(&format!("set local search_path = {}", plan.search_path)).await?;
    let mut path: Vec<String> = client.query_one(sql::PATH, &[]).await?.get(0);
    client.batch_execute(OURS).await?;
    if plan.resolved {
        path.extend(plan.lookup.iter().map(|name| name.as_str().to_owned()));
    }
    let row = client.query_one(sql::NAMED, &[&oids, &table, &trust, &path]).await?;
    serde_json::from_value(row.get(0)).map_err(|e| {
        Error::failed(
            "the result of a catalog query could not be \
            parsed",
        )
        .caused_by(e)
    })
}

/// Resolves one expression over the rows of a temporary table, as a value of its column `shadow`: the expression, the
/// column's type, and the objects that the expression names.
///
/// # Errors
/// The server returned an error; the transaction belongs to the caller, and has failed then.
pub async fn expression(
    client: &Client,
    plan: &mut PlanSql,
    (expression, rows, shadow): (&str, &QualifiedName, &str),
    (table, trust): (u32, &[String]),
) -> Result<(String, Named)> {
    let relation: u32 = client.query_one(sql::TEMPORARY, &[&rows.name.as_str()]).await?.get(0);
    client.batch_execute(OURS).await?;
    let types = kept(client, relation).await?;
    let found = types.iter().find(|(name, ..)| name.as_str() == shadow);
    let value = found.map_or_else(|| expression.to_owned(), |(.., kept)| sql::kept(expression, kept));
    let columns = types.iter().map(|(name, ..)| name.as_str());
    let mark = sql::mark(&columns.chain([expression]));
    let resolver = Resolver { client, mark: &mark };
    let rows = format!("pg_temp.{}", rows.name);
    let view = PlanView { mark: &mark, rows: &rows, join: None, expressions: &[value] };
    let done = resolver.view(&view, "", plan).await?;
    let named = named(client, (table, trust), &[done.rule], plan).await?;
    plan.names_others = done.subquery || !named.objects.is_empty();
    Ok((done.expressions.into_iter().next().unwrap_or_default(), named))
}
