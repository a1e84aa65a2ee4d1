-- Everything there is to be said of the table $1 and of the views on it, by name: what, and how it is.
with t as (select c.* from pg_catalog.pg_class c where c.oid = $1::text::regclass)
select 'table', format('kind %s, owner %s, row security %s %s, persistence %s, replica identity %s, options %s, comment %s', relkind,
    relowner::regrole, relrowsecurity, relforcerowsecurity, relpersistence, relreplident, reloptions, obj_description(oid, 'pg_class'))
from t
union all
select 'privilege of ' || case x.grantee when 0 then 'public' else x.grantee::regrole::text end,
    format('%s, grantable %s, by %s', x.privilege_type, x.is_grantable, x.grantor::regrole)
from t, aclexplode(relacl) x
union all
select 'column ' || attname, format('%s %s, not null %s, identity %s, generated %s, default %s, statistics %s, storage %s, compression %s, options %s, collation %s, comment %s',
    attnum, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, pg_get_expr(d.adbin, d.adrelid),
    coalesce(attstattarget, -1), attstorage, attcompression,
    (select array_agg(o) from unnest(attoptions) o where o ~ '^(n_distinct|n_distinct_inherited)='), attcollation::regcollation, col_description(a.attrelid, attnum))
from t join pg_attribute a on a.attrelid = t.oid left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
where attnum > 0 and not attisdropped
union all
select 'column ' || attname || ', privilege of ' || case x.grantee when 0 then 'public' else x.grantee::regrole::text end,
    format('%s, grantable %s, by %s', x.privilege_type, x.is_grantable, x.grantor::regrole)
from t join pg_attribute a on a.attrelid = t.oid and attnum > 0, aclexplode(attacl) x
union all
select 'constraint ' || conname, format('%s, validated %s, comment %s', pg_get_constraintdef(k.oid), convalidated,
    obj_description(k.oid, 'pg_constraint'))
from t join pg_constraint k on conrelid = t.oid
union all
select 'index ' || i.relname, format('%s, valid %s, comment %s, statistics %s, owner %s', replace(pg_get_indexdef(i.oid), ' ON ONLY ', ' ON '),
    indisvalid, obj_description(i.oid, 'pg_class'),
    (select array_agg(coalesce(attstattarget, -1) order by attnum) from pg_attribute where attrelid = i.oid), i.relowner::regrole)
from t join pg_index x on indrelid = t.oid join pg_class i on i.oid = indexrelid
union all
select 'trigger ' || tgname, format('%s, enabled %s, comment %s', pg_get_triggerdef(g.oid), tgenabled, obj_description(g.oid, 'pg_trigger'))
from t join pg_trigger g on tgrelid = t.oid and not tgisinternal and not starts_with(tgname, 'pgstrata_')
union all
select 'policy ' || polname, format('%s, permissive %s, to %s, using %s, check %s, comment %s', polcmd, polpermissive,
    (select array_agg(r::regrole order by r::regrole::text) from unnest(polroles) r), pg_get_expr(polqual, polrelid),
    pg_get_expr(polwithcheck, polrelid), obj_description(p.oid, 'pg_policy'))
from t join pg_policy p on polrelid = t.oid
union all
select 'sequence ' || s.relname, format('owner %s, column %s, kind %s, privileges %s, last %s', s.relowner::regrole, a.attname, d.deptype,
    s.relacl, pg_sequence_last_value(s.oid))
from t join pg_depend d on refobjid = t.oid and classid = 'pg_class'::regclass and refobjsubid > 0 and deptype in ('a', 'i')
  join pg_class s on s.oid = objid and s.relkind = 'S' join pg_attribute a on a.attrelid = t.oid and a.attnum = refobjsubid
union all
select 'materialized view ' || v.oid::regclass, format('%s owner %s, privileges %s, options %s, populated %s, comment %s %s, statistics %s, indexes %s, reads %s',
    pg_get_viewdef(v.oid), v.relowner::regrole, coalesce(v.relacl, acldefault('r', v.relowner)), v.reloptions, v.relispopulated, obj_description(v.oid, 'pg_class'),
    (select array_agg(description order by objsubid) from pg_description where objoid = v.oid and objsubid > 0),
    (select array_agg(nullif(attstattarget, -1) order by attnum) from pg_attribute where attrelid = v.oid and attnum > 0),
    (select array_agg(format('%s, clustered %s, comment %s', pg_get_indexdef(indexrelid), indisclustered, obj_description(indexrelid, 'pg_class'))
       order by indexrelid::regclass::text) from pg_index where indrelid = v.oid),
    (select array_agg(distinct d.refobjid::regclass::text) from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass
       and d.objid = w.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid where ev_class = v.oid))
from t join pg_class v on v.relnamespace = t.relnamespace and v.relkind = 'm'
union all
select 'rule ' || rulename, format('%s, enabled %s, comment %s', pg_get_ruledef(w.oid), ev_enabled, obj_description(w.oid, 'pg_rewrite'))
from t join pg_rewrite w on ev_class = t.oid
union all
select 'rule ' || rulename || ' of ' || e.oid::regclass, format('%s, enabled %s', pg_get_ruledef(w.oid), ev_enabled)
from t join pg_class e on e.relnamespace = t.relnamespace and e.oid <> t.oid and e.relkind = 'r' and e.relname !~ '_(old|new)$'
  join pg_rewrite w on ev_class = e.oid
union all
select 'statistics ' || stxname, format('%s, owner %s, target %s, comment %s', pg_get_statisticsobjdef(s.oid), stxowner::regrole,
    nullif(stxstattarget, -1), obj_description(s.oid, 'pg_statistic_ext'))
from t join pg_statistic_ext s on stxrelid = t.oid
union all
select 'function ' || f.oid::regprocedure, format('%s, owner %s, privileges %s, comment %s, reads %s', pg_get_functiondef(f.oid), proowner::regrole,
    proacl, obj_description(f.oid, 'pg_proc'),
    (select array_agg(distinct refobjid::regclass::text) from pg_depend d where classid = 'pg_proc'::regclass and objid = f.oid
       and refclassid = 'pg_class'::regclass))
from t join pg_proc f on pronamespace = t.relnamespace and prosqlbody is not null
union all
select 'policy ' || polname || ' of ' || p.polrelid::regclass, format('using %s, check %s', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
from t join pg_class e on e.relnamespace = t.relnamespace and e.oid <> t.oid and not e.relispartition join pg_policy p on polrelid = e.oid
  and e.relname !~ '_(old|new)$'
union all
select 'default of ' || e.oid::regclass || '.' || adnum, pg_get_expr(adbin, adrelid)
from t join pg_class e on e.relnamespace = t.relnamespace and e.oid <> t.oid and e.relkind = 'r' and not e.relispartition
  and e.relname !~ '_(old|new)$' join pg_attrdef d on adrelid = e.oid
union all
select 'publication ' || pubname, format('%s %s %s, via root %s', prrelid::regclass, to_jsonb(r) ->> 'prattrs', to_jsonb(r) ->> 'prqual', pubviaroot)
from t join pg_publication_rel r on prrelid = t.oid join pg_publication p on p.oid = prpubid
union all
select 'view ' || v.oid::regclass, format('%s owner %s, privileges %s, options %s, comment %s, reads %s, defaults %s, comments %s',
    pg_get_viewdef(v.oid), v.relowner::regrole, v.relacl, v.reloptions, obj_description(v.oid, 'pg_class'),
    (select array_agg(distinct d.refobjid::regclass::text) from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass
       and d.objid = w.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid where ev_class = v.oid),
    (select array_agg(pg_get_expr(adbin, adrelid) order by adnum) from pg_attrdef where adrelid = v.oid),
    (select array_agg(description order by objsubid) from pg_description where objoid = v.oid and objsubid > 0))
from t join pg_class v on v.relnamespace = t.relnamespace and v.relkind = 'v'
order by 1, 2
