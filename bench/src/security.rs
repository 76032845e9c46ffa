//! `security`: what the checks cost, beside the same without them: requests, messages up to the log, tokens.

use crate::table::Table;
use crate::{Result, Setup};

mod ends;
mod hop;
mod requests;
mod tokens;

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let mut table = Table::default();
    Box::pin(requests::measure(setup, &mut table)).await?;
    hop::measure(setup, &mut table).await?;
    let seconds = setup.seconds;
    let mut table = tokio::task::spawn_blocking(move || tokens::measure(seconds, table)).await??;
    table.note("what is compared runs in turn, in one process; both ends of each connection are in it");
    Ok(table)
}
