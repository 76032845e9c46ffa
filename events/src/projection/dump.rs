//! Views as text, to be compared.

use super::database::{Query, Reader, Statement};
use super::{ViewError, Views};

/// The tables that are views.
pub(super) const TABLES: Statement = Statement {
    sqlite: "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'snapshots'",
    postgres: "SELECT tablename::text FROM pg_catalog.pg_tables
               WHERE schemaname = current_schema() AND tablename <> 'snapshots'",
};

/// The columns of table `$1`, each as an expression that gives its values as literals of SQL.
pub(super) const COLUMNS: Statement = Statement {
    sqlite: "SELECT 'quote(' || name || ')' FROM pragma_table_info($1) ORDER BY cid",
    postgres: "SELECT 'coalesce(' || CASE data_type
                   WHEN 'text' THEN '''''''''  || replace(' || column_name || ', '''''''', '''''''''''') || '''''''''
                   WHEN 'bytea' THEN '''X''''''  || upper(encode(' || column_name || ', ''hex'')) || '''''''''
                   ELSE column_name || '::text' END || ', ''NULL'')'
               FROM information_schema.columns
               WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
};

impl Views {
    /// All rows of all views as text, one a line, in an order that depends on nothing but the rows: two dumps
    /// are equal byte for byte where the views are (RP-1), whatever they are kept in.
    pub async fn dump(&self) -> Result<String, ViewError> {
        let lines = lines(&self.shared.reader).await;
        lines.map_err(|error| self.unavailable(&error.to_string()))
    }
}

async fn lines(reader: &Reader) -> Result<String, sqlx::Error> {
    let mut lines = Vec::new();
    for table in reader.fetch(TABLES, []).await? {
        let table: String = table.get(0)?;
        let columns = reader.fetch(COLUMNS, [table.as_str().into()]).await?;
        let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
        let rows = Query::of_names(format!("SELECT {} FROM {table}", columns.join(" || ',' || ")));
        for row in reader.query(rows).await? {
            lines.push(format!("{table}: {}\n", row.get::<&str>(0)?));
        }
    }
    lines.sort();
    Ok(lines.concat())
}
