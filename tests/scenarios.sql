-- The field study's database, as its people have it: two tables of observations, what they point to, and what reads them.
-- Each table has its truth beside it, which the tests' writers keep.
do $$ begin create role field login; exception when duplicate_object or unique_violation then null; end $$;
do $$ begin create role stranger login; exception when duplicate_object or unique_violation then null; end $$;

create table sites (site_id uuid primary key default gen_random_uuid(), name text not null unique);
create table submissions (
    submission_id uuid primary key default gen_random_uuid(),
    site_id uuid not null references sites,
    created_by text not null default current_user,
    created_at timestamptz not null default now()
);
create table memberships (member text not null, site_id uuid not null references sites on delete cascade, primary key (member, site_id));

create table petri_observations (
    observation_id uuid primary key default gen_random_uuid(),
    submission_id uuid not null references submissions on delete cascade,
    site_id uuid not null references sites,
    petri_code text not null,
    growth_index numeric(5, 2) check (growth_index >= 0),
    note text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create table gasifier_observations (
    observation_id uuid primary key default gen_random_uuid(),
    submission_id uuid not null references submissions on delete cascade,
    site_id uuid not null references sites,
    gasifier_code text not null,
    measure numeric(8, 3),
    note text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

insert into sites (name) select 'Site ' || i from generate_series(1, 12) i;
insert into memberships select 'field', site_id from sites;
insert into submissions (site_id, created_at)
select s.site_id, timestamptz '2024-01-01Z' + i * interval '17 hours' from generate_series(0, 999) i
  join lateral (select site_id from sites order by name offset i % 12 limit 1) s on true;

create temporary table numbered as select submission_id, site_id, row_number() over (order by created_at) - 1 as n from submissions;
insert into petri_observations (submission_id, site_id, petri_code, growth_index, note, created_at)
select submission_id, site_id, 'P' || i % 40, i % 1000 / 10.0, case when i % 5 > 0 then 'dish ' || i end,
    timestamptz '2024-01-01Z' + i * interval '731 days' / 100000
from generate_series(0, 99999) i join numbered on n = i % 1000;
insert into gasifier_observations (submission_id, site_id, gasifier_code, measure, note, created_at)
select submission_id, site_id, 'G' || i % 30, i / 16.0, case when i % 3 > 0 then 'it''s "burning" ' || i end,
    timestamptz '2024-01-01Z' + i * interval '731 days' / 100000
from generate_series(0, 99999) i join numbered on n = i % 1000;

create index petri_observations_created_at on petri_observations (created_at desc);
create index petri_observations_submission on petri_observations (submission_id);
create index petri_observations_site on petri_observations (site_id, petri_code);
create index gasifier_observations_created_at on gasifier_observations (created_at desc);
create index gasifier_observations_submission on gasifier_observations (submission_id);
create index gasifier_observations_site on gasifier_observations (site_id);

create view petri_observations_with_names as
    select o.*, s.name as site_name, u.created_by
    from petri_observations o join sites s using (site_id) join submissions u using (submission_id);
create view gasifier_observations_with_names as
    select o.*, s.name as site_name, u.created_by
    from gasifier_observations o join sites s using (site_id) join submissions u using (submission_id);
create view petri_observations_summary as
    select s.name as site_name, o.petri_code, date_trunc('month', o.created_at) as month, count(*) as observations,
        avg(o.growth_index) as growth_index, max(o.created_at) as last_seen
    from petri_observations o join sites s using (site_id) group by 1, 2, 3;

alter table petri_observations enable row level security;
create policy petri_of_own_sites on petri_observations to field
    using (site_id in (select m.site_id from memberships m where m.member = current_user))
    with check (site_id in (select m.site_id from memberships m where m.member = current_user));
alter table gasifier_observations enable row level security;
create policy gasifier_of_own_sites on gasifier_observations to field
    using (site_id in (select m.site_id from memberships m where m.member = current_user));

grant select on sites, memberships to field, stranger;
grant select, insert, delete on submissions to field;
grant select, insert, update, delete on petri_observations, gasifier_observations to field;
grant select on petri_observations, gasifier_observations to stranger;
grant select on petri_observations_with_names, gasifier_observations_with_names, petri_observations_summary to field;

create table truth_petri_observations (like petri_observations including indexes);
insert into truth_petri_observations select * from petri_observations;
create table truth_gasifier_observations (like gasifier_observations including indexes);
insert into truth_gasifier_observations select * from gasifier_observations;
grant all on truth_petri_observations, truth_gasifier_observations to field;
analyze;
