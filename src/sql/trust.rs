//! Which roles a job trusts: one condition, for all statements that ask for it.

/// A condition of SQL: whether the role with oid `$oid` could act as the role `$role` without the job's help. Superusers
/// could.
///
/// `$role` is `session_user`, the role that logged in. The role that the session acts as (`SET ROLE`) is not trusted for
/// that alone: code that its members wrote could reset it. In the function of a trigger, `$role` is `current_user`, the
/// function's owner, because `session_user` is the role that writes the row.
///
/// Before PostgreSQL 16, any member can act as the role; since then, only one that may SET it: a member that inherits its
/// privileges, and nothing else, has none of those that the role can only SET.
macro_rules! could_act_as {
    ($oid:literal, $role:literal) => {
        concat!(
            "pg_catalog.pg_has_role(", $oid, ", ", $role, ",\n      \
             case when pg_catalog.current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end)"
        )
    };
}

/// The same, or the plan trusts the role: `$names` is its list, a `text[]`.
macro_rules! is_trusted {
    ($oid:literal, $role:literal, $names:literal) => {
        concat!(
            "(pg_catalog.pg_get_userbyid(",
            $oid,
            ")::text = any (",
            $names,
            ")\n    or ",
            $crate::sql::trust::could_act_as!($oid, $role),
            ")"
        )
    };
}

/// The roles that can create objects in schema `n`, other than trusted ones: a subquery with the oid of each as `oid`, which is 0
/// for PUBLIC. The role `pg_database_owner` stands for the owner of the database.
macro_rules! untrusted_creators {
    ($role:literal, $names:literal) => {
        concat!(
            "(
        select g.oid from (
            select x.grantee as oid from pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x
            where x.privilege_type = 'CREATE'
            union select n.nspowner) g
          left join pg_catalog.pg_roles r on r.oid = case
            when g.oid = (select oid from pg_catalog.pg_roles where rolname = 'pg_database_owner')
            then (select datdba from pg_catalog.pg_database where datname = pg_catalog.current_database()) else g.oid end
        where not coalesce(",
            $crate::sql::trust::is_trusted!("r.oid", $role, $names),
            ", false))"
        )
    };
}

/// The functions, operators, types and relations of all schemas that a lookup by name can find: a query for `schema` and
/// `owner`.
macro_rules! planted {
    () => {
        "select pronamespace as schema, proowner as owner from pg_catalog.pg_proc
  union all select oprnamespace, oprowner from pg_catalog.pg_operator
  union all select typnamespace, typowner from pg_catalog.pg_type
  union all select relnamespace, relowner from pg_catalog.pg_class"
    };
}

pub(super) use {could_act_as, is_trusted, planted, untrusted_creators};
