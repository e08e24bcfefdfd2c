//! A search becomes SQL: what is asked is bound, never written into the statement.

use h5flight_array::expression::{Expression, Literal, Test};
use sqlx::QueryBuilder;

use super::{Db, Store, dialect, fault};
use crate::error::Result;
use crate::model::*;
use crate::paging::Request;
use crate::rows::{FoundExperimentRow, SummaryRow, experiment_columns, select_summaries, version_joins};
use crate::wanted::{self, Kind, Wanted};

/// A statement under way.
type Sql = QueryBuilder<Db>;

pub(super) async fn search(store: &Store, query: &str, page: &Page) -> Result<Paged<DatasetSummary>> {
    let request: Request<3> = Request::parse("search", page)?;
    let mut sql = Sql::new(select_summaries!());
    if let Some(expression) = wanted::read(query)? {
        sql.push("AND ");
        write(&mut sql, &expression)?;
    }
    write_page(&mut sql, "n.name, e.name, d.name", &request);
    let rows: Vec<SummaryRow> =
        sql.build_query_as().persistent(false).fetch_all(&store.readers).await.map_err(fault)?;
    let datasets = rows.into_iter().map(SummaryRow::summary).collect::<Result<Vec<_>>>()?;
    Ok(request.page(datasets, |dataset| [&dataset.path.animal, &dataset.path.experiment, &dataset.path.dataset]))
}

/// Experiments that have at least one such dataset.
pub(super) async fn search_experiments(store: &Store, query: &str, page: &Page) -> Result<Paged<ExperimentSummary>> {
    let request: Request<2> = Request::parse("search experiments", page)?;
    let mut sql = Sql::new(concat!(
        "SELECT n.name AS animal, ",
        experiment_columns!(),
        "FROM experiments e JOIN animals n ON n.id = e.animal_id WHERE EXISTS \
            (SELECT 1 FROM datasets d JOIN versions v ON v.id = d.current_version_id ",
        version_joins!(),
        "WHERE d.experiment_id = e.id AND d.withdrawn_by IS NULL "
    ));
    if let Some(expression) = wanted::read(query)? {
        sql.push("AND ");
        write(&mut sql, &expression)?;
    }
    sql.push(")");
    write_page(&mut sql, "n.name, e.name", &request);
    let rows: Vec<FoundExperimentRow> =
        sql.build_query_as().persistent(false).fetch_all(&store.readers).await.map_err(fault)?;
    let found = rows.into_iter().map(FoundExperimentRow::summary).collect::<Result<Vec<_>>>()?;
    Ok(request.page(found, |experiment| [&experiment.animal, &experiment.experiment]))
}

/// What comes after the last page, in the order of these columns.
fn write_page<const N: usize>(sql: &mut Sql, columns: &str, request: &Request<N>) {
    sql.push(format!(" AND ({columns}) > ("));
    for (at, name) in request.after.iter().enumerate() {
        sql.push(if at > 0 { ", " } else { "" });
        sql.push_bind(name.clone());
    }
    sql.push(format!(") ORDER BY {columns} LIMIT "));
    sql.push_bind(request.limit());
}

fn write(sql: &mut Sql, expression: &Expression) -> Result<()> {
    let (members, between) = match expression {
        Expression::All(members) => (members, " AND "),
        Expression::Any(members) => (members, " OR "),
        Expression::Not(inner) => {
            sql.push("(NOT ");
            write(sql, inner)?;
            sql.push(")");
            return Ok(());
        }
        Expression::Word(word) => {
            write_word(sql, word);
            return Ok(());
        }
        Expression::Condition { name, test } => return write_condition(sql, name, test),
    };
    for (at, member) in members.iter().enumerate() {
        sql.push(if at > 0 { between } else { "(" });
        write(sql, member)?;
    }
    sql.push(")");
    Ok(())
}

/// In the texts of the object or of its experiment, which are in small letters.
fn write_word(sql: &mut Sql, word: &str) {
    sql.push("(");
    write_part(sql, &word.to_lowercase());
    for (at, part) in wanted::parts(word).iter().enumerate() {
        sql.push(if at > 0 { " AND " } else { " OR (" });
        write_part(sql, part);
    }
    sql.push(if wanted::parts(word).is_empty() { ")" } else { "))" });
}

fn write_part(sql: &mut Sql, part: &str) {
    sql.push("(");
    dialect::write_contains(sql, "o.search_text", part);
    sql.push(" OR ");
    dialect::write_contains(sql, "e.search_text", part);
    sql.push(")");
}

fn write_condition(sql: &mut Sql, name: &str, test: &Test) -> Result<()> {
    let wanted = Wanted::of(name)?;
    let kind = wanted::kind_of(name, test)?;
    if let Wanted::Listed(name) = wanted {
        sql.push(if matches!(test, Test::IsNull) { "(NOT EXISTS (SELECT 1 FROM " } else { "(EXISTS (SELECT 1 FROM " });
        dialect::write_texts(sql, "e.details", name);
        if !matches!(test, Test::IsNull) {
            sql.push(" WHERE ");
            write_test(sql, wanted, (test, kind));
        }
        sql.push("))");
    } else {
        write_test(sql, wanted, (test, kind));
    }
    Ok(())
}

fn write_test(sql: &mut Sql, wanted: Wanted<'_>, (test, kind): (&Test, Option<Kind>)) {
    sql.push("(");
    match test {
        Test::Compare(comparison, literal) => {
            write_value(sql, wanted, kind);
            sql.push(format!(" {} ", comparison.as_str()));
            write_literal(sql, literal);
        }
        Test::In(literals) => {
            write_value(sql, wanted, kind);
            for (at, literal) in literals.iter().enumerate() {
                sql.push(if at > 0 { ", " } else { " IN (" });
                write_literal(sql, literal);
            }
            sql.push(")");
        }
        Test::Between(low, high) => {
            write_value(sql, wanted, kind);
            sql.push(" BETWEEN ");
            write_literal(sql, low);
            sql.push(" AND ");
            write_literal(sql, high);
        }
        Test::Like(pattern) => {
            dialect::write_folded(sql, |sql| write_value(sql, wanted, kind));
            sql.push(" LIKE ");
            sql.push_bind(wanted::pattern(pattern).to_ascii_lowercase());
            sql.push(" ESCAPE '\\'");
        }
        Test::Contains(text) => {
            let pattern: String = text
                .chars()
                .flat_map(|one| ['\\', one].into_iter().skip(usize::from(!matches!(one, '%' | '_' | '\\'))))
                .collect();
            dialect::write_folded(sql, |sql| write_value(sql, wanted, kind));
            sql.push(" LIKE ");
            sql.push_bind(format!("%{}%", pattern.to_ascii_lowercase()));
            sql.push(" ESCAPE '\\'");
        }
        Test::IsNull => {
            write_value(sql, wanted, kind);
            sql.push(" IS NULL");
        }
    }
    sql.push(")");
}

fn write_literal(sql: &mut Sql, literal: &Literal) {
    match literal {
        Literal::Text(text) => {
            sql.push_bind(text.clone());
        }
        Literal::Bool(truth) => {
            sql.push(if *truth { "1" } else { "0" });
        }
        Literal::Integer(_) | Literal::Float(_) => dialect::write_number(sql, literal),
    }
}

/// What is compared. Of an attribute that has another kind it is NULL.
fn write_value(sql: &mut Sql, wanted: Wanted<'_>, kind: Option<Kind>) {
    match wanted {
        Wanted::Column(column, _) => {
            sql.push(column);
        }
        Wanted::Rank => dialect::write_rank(sql),
        Wanted::Attribute(name) => dialect::write_member(sql, "o.attributes", name, kind),
        Wanted::Detail(name, _) => dialect::write_member(sql, "e.details", name, kind),
        Wanted::Listed(_) => {
            sql.push(dialect::LISTED_TEXT);
        }
        Wanted::NeurodataType => write_or_beside(sql, "neurodata_type", ("o.parent", kind)),
        Wanted::Rate => write_or_beside(sql, "rate", ("o.parent || '/starting_time'", kind)),
    }
}

/// An attribute of the object, else of the one with that name in the same experiment.
fn write_or_beside(sql: &mut Sql, attribute: &str, (other, kind): (&str, Option<Kind>)) {
    sql.push("coalesce(");
    dialect::write_member(sql, "o.attributes", attribute, kind);
    sql.push(", (SELECT ");
    dialect::write_member(sql, "p.attributes", attribute, kind);
    sql.push(" FROM objects p WHERE p.experiment_id = d.experiment_id AND p.superseded_by IS NULL AND p.name = ");
    sql.push(other);
    sql.push(" ORDER BY p.id DESC LIMIT 1))");
}
