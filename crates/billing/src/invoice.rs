//! The lines of a month and their sum.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    month::{Month, Piece},
    plan::Plan,
    price::{Currency, Money, Price, nearest},
    usage::{MailboxUsage, Measured},
};

/// 10⁹ bytes.
const GB: u128 = 1_000_000_000;

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    Mailbox,
    Kept,
    Carried,
    Switchovers,
    Minimum,
    Correction,
}

impl Position {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Kept => "kept",
            Self::Carried => "carried",
            Self::Switchovers => "switchovers",
            Self::Minimum => "minimum",
            Self::Correction => "correction",
        }
    }

    /// What its quantity counts.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Mailbox => "days",
            Self::Kept => "byte-days",
            Self::Carried => "bytes",
            Self::Switchovers => "switchovers",
            Self::Minimum | Self::Correction => "",
        }
    }
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub position: Position,
    /// Empty where it concerns no single mailbox.
    pub address: String,
    pub primary: String,
    pub group: String,
    /// Everything used, what is included too; a whole number, as text since it may be large.
    pub quantity: String,
    pub unit: String,
    /// Of a correction: why, and which month it corrects.
    #[serde(default)]
    pub note: String,
    /// In smallest units of the currency.
    pub amount: i64,
}

/// Something that a closed month had wrong, put right in a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    pub month: Month,
    pub address: String,
    pub amount: i64,
    pub reason: String,
}

/// A month, or some days of one, in lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    pub piece: Piece,
    pub currency: Currency,
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: i64,
}

impl Invoice {
    /// An amount of a line, for people.
    #[must_use]
    pub fn money(&self, minor: i64) -> Money {
        Money { minor, currency: self.currency }
    }
}

/// Prices what was used. Mailboxes are taken in the order of their addresses, whatever the order given.
#[must_use]
pub fn invoice(plan: &Plan, piece: Piece, usage: &[MailboxUsage], corrections: &[Correction]) -> Invoice {
    invoice_measured(plan, piece, usage.iter().map(|mailbox| (mailbox, mailbox.measure(piece))).collect(), corrections)
}

/// The same of what was measured before, as the audit has it of a closed month.
#[must_use]
pub fn invoice_measured(
    plan: &Plan,
    piece: Piece,
    mut mailboxes: Vec<(&MailboxUsage, Measured)>,
    corrections: &[Correction],
) -> Invoice {
    mailboxes.sort_by(|(a, _), (b, _)| (&a.address, &a.primary).cmp(&(&b.address, &b.primary)));
    let pricing = Pricing { plan, month_days: i128::from(piece.month.days()) };
    let mut lines = Vec::new();
    let mut days_before = 0;
    for (mailbox, measured) in mailboxes {
        pricing.mailbox(mailbox, &measured, &mut days_before, &mut lines);
    }
    let so_far: i64 = lines.iter().map(|line: &Line| line.amount).sum();
    let minimum = pricing.rounded(plan.minimum.parts() * i128::from(piece.days()), pricing.month_days);
    if so_far < minimum {
        lines.push(line(Position::Minimum, None, 0, minimum - so_far));
    }
    for correction in corrections {
        lines.push(Line {
            address: correction.address.clone(),
            note: format!("{}: {}", correction.month, correction.reason),
            ..line(Position::Correction, None, 0, correction.amount)
        });
    }
    let total = lines.iter().map(|line| line.amount).sum();
    Invoice { piece, currency: plan.currency, lines, total }
}

struct Pricing<'a> {
    plan: &'a Plan,
    month_days: i128,
}

impl Pricing<'_> {
    fn mailbox(&self, mailbox: &MailboxUsage, measured: &Measured, days_before: &mut u128, lines: &mut Vec<Line>) {
        if measured.days > 0 {
            // Without pro rata, a mailbox counts for the whole month.
            let days = if self.plan.pro_rata { i128::from(measured.days) } else { self.month_days };
            let month_days = self.month_days.unsigned_abs();
            let tiers =
                self.plan.mailboxes.iter().map(|tier| (tier.up_to.map(|end| u128::from(end) * month_days), tier.price));
            let priced = graduated(tiers, *days_before, *days_before + days.unsigned_abs());
            *days_before += days.unsigned_abs();
            let amount = self.rounded(priced, self.month_days);
            lines.push(line(Position::Mailbox, Some(mailbox), u128::from(measured.days), amount));
        }
        if measured.kept_byte_days > 0 {
            let days = u128::from(measured.days);
            let included = u128::from(self.plan.kept.included_gb) * GB * days;
            let tiers = self
                .plan
                .kept
                .tiers
                .iter()
                .map(|tier| (tier.up_to_gb.map(|end| u128::from(end) * GB * days), tier.price));
            let priced = graduated(tiers, 0, measured.kept_byte_days.saturating_sub(included));
            let amount = self.rounded(priced, self.month_days * GB.cast_signed());
            lines.push(line(Position::Kept, Some(mailbox), measured.kept_byte_days, amount));
        }
        if measured.carried_bytes > 0 {
            let included = u128::from(self.plan.carried.included_gb) * GB;
            let beyond = measured.carried_bytes.saturating_sub(included).cast_signed();
            let amount = self.rounded(beyond * self.plan.carried.price.parts(), GB.cast_signed());
            lines.push(line(Position::Carried, Some(mailbox), measured.carried_bytes, amount));
        }
        if measured.switchovers > 0 {
            let beyond = measured.switchovers.saturating_sub(self.plan.switchovers.included);
            let amount = self.rounded(i128::from(beyond) * self.plan.switchovers.price.parts(), 1);
            lines.push(line(Position::Switchovers, Some(mailbox), u128::from(measured.switchovers), amount));
        }
    }

    /// Parts of the currency's unit, divided, in its smallest units: the one place where anything is rounded.
    fn rounded(&self, parts: i128, divisor: i128) -> i64 {
        let minor = nearest(parts, divisor * self.plan.currency.parts_in_minor());
        i64::try_from(minor).unwrap_or(i64::MAX)
    }
}

/// The price of what lies between two marks, each stretch of it at its tier's price.
fn graduated(tiers: impl Iterator<Item = (Option<u128>, Price)>, from: u128, to: u128) -> i128 {
    let mut start = 0;
    let mut priced = 0;
    for (end, price) in tiers {
        let end = end.unwrap_or(u128::MAX);
        let within = to.min(end).saturating_sub(from.max(start));
        priced += within.cast_signed() * price.parts();
        start = end;
    }
    priced
}

fn line(position: Position, mailbox: Option<&MailboxUsage>, quantity: u128, amount: i64) -> Line {
    let of = |part: fn(&MailboxUsage) -> &String| mailbox.map(part).cloned().unwrap_or_default();
    Line {
        position,
        address: of(|mailbox| &mailbox.address),
        primary: of(|mailbox| &mailbox.primary),
        group: of(|mailbox| &mailbox.group),
        quantity: if position.unit().is_empty() { String::new() } else { quantity.to_string() },
        unit: position.unit().to_owned(),
        note: String::new(),
        amount,
    }
}
