//! Changes of side as users behind a front door meet them.
//!
//! In: a stock Dovecot proxy before a primary and a standby. Out: how long users are without an answer when they are moved as
//! planned and when their server dies, how long very many routes take, and what coming home costs.
//! Keeps true: what is timed is a mail program's own clock, from one answered command to the next.

mod away;
mod dead;
mod many;
mod planned;
mod program;
mod site;

use anyhow::Result;
use tokio::runtime::Handle;

use crate::peer::Peer;
use crate::report::Report;
use crate::settings::Settings;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    let Some(runtime) = prepared(settings)? else { return Ok(()) };
    runtime.block_on(planned::measure(settings, report))?;
    for threshold in dead::THRESHOLDS {
        runtime.block_on(dead::measure(settings, report, threshold))?;
    }
    runtime.block_on(away::measure(settings, report))?;
    runtime.block_on(many::measure(settings, report))
}

/// Very many mailboxes in one run, alone.
pub(crate) fn measure_routes(settings: &Settings, report: &mut Report) -> Result<()> {
    let Some(runtime) = prepared(settings)? else { return Ok(()) };
    runtime.block_on(many::measure(settings, report))
}

/// What measures, if this program is to be measured.
fn prepared(settings: &Settings) -> Result<Option<Handle>> {
    if !settings.measures(Peer::Understudy) {
        return Ok(None);
    }
    understudy_tests::stack::use_program(settings.program()?);
    Ok(Some(Handle::current()))
}
