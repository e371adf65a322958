//! `understudy report billing|availability`, `prices`, `invoice`: usage in money, and how well mailboxes were kept in step.

use chrono::NaiveDate;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use crate::client::Client;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Cell, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// What mailboxes used between two days, and what that costs
    #[command(
        after_help = "Examples:\n  understudy report billing --from 2026-11-01 --to 2026-11-30 --format csv > november.csv"
    )]
    Billing(Span),
    /// How long mailboxes were protected and kept in step between two days
    Availability(Span),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Span {
    /// The first day
    #[arg(long, value_name = "DATE")]
    from: NaiveDate,
    /// The last day, included
    #[arg(long, value_name = "DATE")]
    to: NaiveDate,
    /// For spreadsheets or for programs
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Csv,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Show the prices that hold now
    Show,
    /// Set prices from a file with JSON: `{"valid_from": "2026-12", "plan": {"currency": "EUR", …}}`
    Set {
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InvoiceCommand {
    /// List the months and what they come to
    List,
    /// Show a month line by line, as JSON
    Show {
        /// Such as 2026-11
        month: String,
    },
    /// Close a month that is over: it stays as it is then
    Close { month: String },
    /// Put right what a closed month had wrong, by a line in the first open month
    Correct {
        month: String,
        /// In the currency of that month; less than nothing is given back
        #[arg(long, allow_hyphen_values = true)]
        amount: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// The mailbox it is about
        #[arg(long, default_value = "")]
        address: String,
    },
}

pub(crate) async fn run(command: &ReportCommand, context: &Context) -> Result<Exit> {
    let (name, span) = match command {
        ReportCommand::Billing(span) => ("billing", span),
        ReportCommand::Availability(span) => ("availability", span),
    };
    let client = context.client()?;
    let (from, to) = (span.from.to_string(), span.to.to_string());
    let query = [("from", from.as_str()), ("to", to.as_str())];
    if context.json || span.format == Format::Json {
        output::json(&client.get(&["reports", name], &query).await?);
    } else {
        output::print(&csv(&client, name, &query).await?);
    }
    Ok(Exit::Done)
}

async fn csv(client: &Client, name: &str, query: &[(&str, &str)]) -> Result<String> {
    let query = [query, &[("format", "csv")]].concat();
    let answer = client.stream(&["reports", name], &query, None).await?;
    answer.text().await.map_err(|error| Failure::new("the report broke off", error.to_string(), "ask again"))
}

pub(crate) async fn prices(command: &PricesCommand, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    let shown = match command {
        PricesCommand::Show => client.get(&["prices"], &[]).await?,
        PricesCommand::Set { file } => {
            let unreadable = |why: String| {
                Failure::usage(format!("{} cannot be read", file.display()), why, "name a file with prices as JSON")
            };
            let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
            let new: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
            client.put(&["prices"], &[], &new).await?.body
        }
    };
    output::json(&shown);
    Ok(Exit::Done)
}

pub(crate) async fn invoice(command: &InvoiceCommand, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    match command {
        InvoiceCommand::List => {
            let answer = client.get(&["invoices"], &[]).await?;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            if context.json {
                output::json(&items);
                return Ok(Exit::Done);
            }
            let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
            let mut table = Table::new(&["MONTH", "STATE", "TOTAL", "CURRENCY"]);
            for item in &items {
                table.row(["month", "state", "total", "currency"].map(|name| Cell::from(text(item, name))));
            }
            output::print(&table.render());
        }
        InvoiceCommand::Show { month } => output::json(&client.get(&["invoices", month], &[]).await?),
        InvoiceCommand::Close { month } => {
            let closed = client.post(&["invoices", month, "close"], &[], &json!({})).await?.body;
            say(context, &closed, "Closed");
        }
        InvoiceCommand::Correct { month, amount, reason, address } => {
            let body = json!({ "amount": amount, "reason": reason, "address": address });
            let standing = client.post(&["invoices", month, "corrections"], &[], &body).await?.body;
            say(context, &standing, "The correction stands in");
        }
    }
    Ok(Exit::Done)
}

fn say(context: &Context, invoice: &Value, what: &str) {
    if context.json {
        return output::json(invoice);
    }
    let text = |name: &str| invoice[name].as_str().unwrap_or_default();
    output::line(format!("{what} {}: {} {}.", text("month"), text("total"), text("currency")));
}
