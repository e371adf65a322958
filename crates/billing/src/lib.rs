//! What a month of protection costs: usage and a price plan in, lines and a total out. Nothing here asks a database or a clock.
//!
//! Keeps true: money is whole minor units of one currency, every amount is rounded once, and the total is the sum of the lines.

mod csv;
mod invoice;
mod month;
mod plan;
mod price;
mod usage;

pub use csv::{cell, report as csv_report};
pub use invoice::{Correction, Invoice, Line, Position, invoice, invoice_measured};
pub use month::{Month, Piece};
pub use plan::{Carried, Kept, MailboxTier, Plan, Switchovers, Tier, Wrong};
pub use price::{Currency, Money, Price};
pub use usage::{MailboxUsage, Measured, Span};

#[cfg(test)]
mod tests;
