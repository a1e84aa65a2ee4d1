//! A table with every property and every kind of dependent, for unit tests.

use super::dependent::*;
use super::grant::{Grant, RowType};
use super::ident::{Ident, QualifiedName};
use super::table::*;

fn columns() -> Vec<Column> {
    let column = |name: &str, sql_type: &str, not_null: bool| Column {
        name: Ident::new(name),
        sql_type: sql_type.into(),
        base_type: sql_type.into(),
        collation: None,
        deterministic: true,
        hashable: sql_type != "json",
        not_null,
        generated: String::new(),
        identity: String::new(),
        default: None,
        statistics: None,
        options: vec![],
        looks: Some(ColumnLooks { storage: "x".into(), ..ColumnLooks::default() }),
    };
    vec![
        column("observation_id", "uuid", true),
        Column { identity: "d".into(), ..column("seq", "bigint", true) },
        column("submission_id", "bigint", false),
        column("note", "text", false),
        column("raw", "json", false),
        Column {
            generated: "s".into(),
            default: Some("length(note)".into()),
            ..column("len", "integer", false)
        },
        column("created_at", "timestamp with time zone", true),
    ]
}

fn indexes() -> Vec<Index> {
    let index = |name: &str, tail: &str, columns: &[&str], constraint: &str| Index {
        name: Ident::new(name),
        tail: tail.into(),
        unique: constraint == "p",
        constraint: constraint.into(),
        exclusion: None,
        equated: vec![],
        deferrable: String::new(),
        valid: true,
        columns: Some(columns.iter().map(|c| Ident::new(*c)).collect()),
        include: vec![],
        partial: false,
        plain_order: true,
        nulls_not_distinct: false,
        options: vec![],
        comment: None,
        statistics: vec![],
        clustered: false,
        tablespace: None,
    };
    vec![
        index("petri_observations_pkey", "btree (observation_id)", &["observation_id"], "p"),
        index("petri_created", "btree (created_at DESC)", &["created_at"], ""),
    ]
}

fn policies() -> Vec<Policy> {
    vec![Policy {
        name: Ident::new("own rows"),
        permissive: true,
        command: "ALL".into(),
        roles: vec![Ident::new("app")],
        using: Some("(submission_id > 0)".into()),
        check: None,
    }]
}

fn triggers() -> Vec<Trigger> {
    vec![Trigger {
        name: Ident::new("touch"),
        head: "CREATE TRIGGER touch BEFORE UPDATE ON ".into(),
        tail: " FOR EACH ROW EXECUTE FUNCTION public.touch()".into(),
        enabled: "O".into(),
        row: true,
        before_insert: false,
        transition: false,
    }]
}

fn views() -> Vec<View> {
    vec![View {
        name: QualifiedName::new("public", "petri_observations_with_names"),
        owner: Ident::new("lab"),
        query: " SELECT p.observation_id\n   FROM public.petri_observations p;".into(),
        options: vec!["security_barrier=true".into()],
        bound_to_key: false,
    }]
}

fn grants() -> Vec<Grant> {
    vec![
        Grant {
            role: Some(Ident::new("app")),
            grantor: Ident::new("lab"),
            privilege: "SELECT".into(),
            column: None,
            grantable: true,
        },
        Grant {
            role: None,
            grantor: Ident::new("lab"),
            privilege: "UPDATE".into(),
            column: Some(Ident::new("note")),
            grantable: false,
        },
    ]
}

fn dependents() -> Dependents {
    let table = |name: &str| QualifiedName::new("public", name);
    Dependents {
        rules: vec![Rule {
            name: Ident::new("said"),
            table: table("petri_observations"),
            relkind: "r".into(),
            definition: "CREATE RULE said AS\n    ON DELETE TO public.petri_observations DO  INSERT INTO public.said VALUES (1);".into(),
            enabled: "O".into(),
            needs_key: false,
            comment: None,
        }],
        statistics: vec![Statistics {
            name: table("petri_where"),
            tail: " (dependencies) ON submission_id, note".into(),
            owner: Ident::new("lab"),
            target: Some(300),
            comment: None,
        }],
        publications: vec![Publication {
            name: Ident::new("lab_out"),
            columns: None,
            condition: Some("(seq > 0)".into()),
            via_root: false,
        }],
        functions: vec![Function {
            name: "public.newest()".into(),
            definition: "CREATE OR REPLACE FUNCTION public.newest()\n RETURNS bigint\n LANGUAGE sql\nBEGIN ATOMIC\n \
                         SELECT max(seq) FROM public.petri_observations;\nEND\n"
                .into(),
            needs_key: false,
        }],
        row_functions: Vec::new(),
        policies: vec![OtherPolicy {
            name: Ident::new("seen"),
            table: table("remarks"),
            using: Some("(EXISTS ( SELECT FROM public.petri_observations))".into()),
            check: None,
        }],
        defaults: vec![OtherDefault {
            table: table("drafts"),
            column: Ident::new("id"),
            expression: "nextval('public.petri_observations_seq_seq'::regclass)".into(),
        }],
        matviews: vec![],
    }
}

fn sequences() -> Vec<Sequence> {
    vec![Sequence {
        name: QualifiedName::new("public", "petri_observations_seq_seq"),
        column: Ident::new("seq"),
        identity: true,
        grants: vec![Grant {
            role: Some(Ident::new("app")),
            grantor: Ident::new("lab"),
            privilege: "USAGE".into(),
            column: None,
            grantable: false,
        }],
        default_privileges: true,
        options: Some(SequenceOptions {
            sql_type: "bigint".into(),
            start: 1,
            increment: 1,
            min: 1,
            max: i64::MAX,
            cache: 1,
            cycle: false,
            comment: None,
        }),
        uses: Some(SequenceUses::default()),
    }]
}

/// The table of scenario 1.
pub(crate) fn petri() -> Table {
    let name = QualifiedName::new("public", "petri_observations");
    Table {
        oid: 16_400,
        name: name.clone(),
        relkind: "r".into(),
        persistence: "p".into(),
        is_partition: false,
        children: 0,
        parents: 0,
        typed: false,
        extension: None,
        owner: Ident::new("lab"),
        comment: Some("what was seen in a petri dish; it's raw".into()),
        options: vec!["fillfactor=90".into()],
        toast_options: vec!["autovacuum_enabled=true".into()],
        replica_identity: ReplicaIdentity::Default,
        access_method: None,
        tablespace: None,
        row_security: true,
        force_row_security: true,
        columns: columns(),
        indexes: indexes(),
        checks: vec![Check {
            name: Ident::new("note_short"),
            definition: "CHECK ((length(note) < 1000))".into(),
            validated: true,
            no_inherit: false,
        }],
        not_null_no_inherit: vec![],
        foreign_keys: vec![ForeignKey {
            name: Ident::new("petri_submission_fk"),
            table: name.clone(),
            references: QualifiedName::new("public", "submissions"),
            definition: "FOREIGN KEY (submission_id) REFERENCES public.submissions(id)".into(),
            validated: true,
            comment: None,
            index: None,
            from_partitioned: false,
            to_unlogged: false,
        }],
        referenced_by: vec![],
        grants: grants(),
        default_privileges: false,
        row_type: None,
        policies: policies(),
        triggers: triggers(),
        views: views(),
        sequences: sequences(),
        comments: vec![Comment {
            kind: "trigger".into(),
            name: Ident::new("touch"),
            text: "says when it's changed".into(),
        }],
        dependents: dependents(),
        operator_schemas: vec![],
        labels: vec![],
        others: vec![],
    }
}

fn row_type() -> RowType {
    RowType {
        default_privileges: false,
        grants: vec![Grant {
            privilege: "USAGE".into(),
            column: Some(Ident::new("note")),
            ..grants()[0].clone()
        }],
        comment: Some("a row".into()),
    }
}

fn matview(view: &View, grants: &[Grant]) -> Matview {
    Matview {
        view: View { name: QualifiedName::new("public", "per_day"), ..view.clone() },
        comment: Some("by day".into()),
        populated: true,
        access_method: Some(Ident::new("columnar")),
        tablespace: Some(Ident::new("fast")),
        grants: grants.to_vec(),
        row_type: Some(row_type()),
        columns: vec![MatviewColumn {
            name: Ident::new("day"),
            comment: Some("when".into()),
            statistics: Some(100),
        }],
        indexes: vec![MatviewIndex {
            name: Ident::new("per_day_day"),
            unique: true,
            clustered: false,
            tail: "btree (day)".into(),
            comment: Some("by day".into()),
            tablespace: Some(Ident::new("fast")),
        }],
        readers: vec![view.clone()],
        others: vec!["function lab.f()".into()],
    }
}

/// The same table, with an example of every kind of object and property.
pub(crate) fn full() -> Table {
    let name = |name: &str| Some(Ident::new(name));
    let text = |text: &str| Some(text.to_owned());
    let mut table = petri();
    table.extension = text("lab");
    (table.access_method, table.tablespace) = (name("columnar"), name("fast"));
    table.not_null_no_inherit = vec![Ident::new("there")];
    table.others = vec!["type lab.seen".into()];
    table.operator_schemas = vec![Ident::new("extensions")];
    table.labels = vec!["guard on column seq".into()];
    table.row_type = Some(row_type());
    table.columns[0] = Column {
        collation: text("pg_catalog.\"C\""),
        default: text("gen_random_uuid()"),
        statistics: Some(100),
        options: vec!["n_distinct=5".into()],
        looks: Some(ColumnLooks {
            comment: text("the key"),
            storage: "p".into(),
            compression: "l".into(),
            not_null: name("petri_observations_observation_id_not_null"),
        }),
        ..table.columns[0].clone()
    };
    table.indexes[0] = Index {
        exclusion: text("EXCLUDE USING gist (seq WITH =)"),
        equated: vec![Ident::new("seq")],
        include: vec![Ident::new("note")],
        options: vec!["fillfactor=80".into()],
        comment: text("the key's"),
        statistics: vec![(1, 100)],
        tablespace: name("fast"),
        ..table.indexes[0].clone()
    };
    table.sequences[0].uses = Some(SequenceUses { by: vec!["view lab.numbers".into()] });
    table.foreign_keys[0].comment = text("where from");
    table.foreign_keys[0].index = name("submissions_pkey");
    table.referenced_by = vec![ForeignKey {
        name: Ident::new("remarks_fk"),
        table: QualifiedName::new("public", "remarks"),
        references: table.name.clone(),
        ..table.foreign_keys[0].clone()
    }];
    table.grants[0].column = name("note");
    table.policies[0].check = text("true");
    table.sequences[0].grants[0].column = name("note");
    if let Some(options) = &mut table.sequences[0].options {
        options.max = 1_000;
        options.comment = text("counts");
    }
    let d = &mut table.dependents;
    d.rules[0].comment = text("says");
    d.statistics[0].comment = text("counts");
    d.publications[0].columns = Some(vec![Ident::new("seq")]);
    d.policies[0].check = text("true");
    let view = table.views[0].clone();
    d.row_functions = vec![RowFunction {
        name: "public.complete(public.petri_observations)".into(),
        schema: Ident::new("public"),
        procedure: false,
        owner: Ident::new("lab"),
        definition: "CREATE OR REPLACE FUNCTION public.complete(public.petri_observations) ...".into(),
        grants: table.grants.clone(),
        owner_executes: true,
        comment: text("done"),
    }];
    d.matviews = vec![matview(&view, &table.grants)];
    table
}
