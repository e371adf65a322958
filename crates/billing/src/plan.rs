//! A tenant's prices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::price::{Currency, Price};

/// What a month costs. Whatever is left out costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// For each mailbox a month, by how many there are: the first so many at one price, those beyond at the next.
    #[serde(default)]
    pub mailboxes: Vec<MailboxTier>,
    #[serde(default)]
    pub kept: Kept,
    #[serde(default)]
    pub carried: Carried,
    #[serde(default)]
    pub switchovers: Switchovers,
    /// A month costs at least this.
    #[serde(default)]
    #[schema(value_type = String, example = "25.00")]
    pub minimum: Price,
    /// A mailbox protected for some days of a month costs that share of its price; else all of it.
    #[serde(default = "yes")]
    pub pro_rata: bool,
}

/// The price of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MailboxTier {
    /// Up to so many mailboxes; the last tier has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    #[schema(value_type = String, example = "2.50")]
    pub price: Price,
}

/// The price of what is kept, in GB (10⁹ bytes) for a month, by the day's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// In the mailbox's own price.
    #[serde(default)]
    pub included_gb: u64,
    /// Beyond that: the first so many GB of a mailbox at one price, those beyond at the next.
    #[serde(default)]
    pub tiers: Vec<Tier>,
}

/// The price of a GB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Up to so many GB; the last tier has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_gb: Option<u64>,
    #[schema(value_type = String, example = "2.50")]
    pub price: Price,
}

/// The price of what is brought over, by the GB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// A month and mailbox.
    #[serde(default)]
    pub included_gb: u64,
    #[serde(default)]
    #[schema(value_type = String, example = "2.50")]
    pub price: Price,
}

/// The price of a switchover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SwitchoverPrice)]
pub struct Switchovers {
    /// A month and mailbox.
    #[serde(default)]
    pub included: u64,
    #[serde(default)]
    #[schema(value_type = String, example = "2.50")]
    pub price: Price,
}

/// What is wrong with a plan, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub pointer: String,
    pub detail: String,
}

/// More tiers help nobody.
const MOST_TIERS: usize = 20;
/// No tier and nothing included is larger.
const MOST: u64 = 1_000_000_000;

fn yes() -> bool {
    true
}

impl Plan {
    /// Free of charge.
    #[must_use]
    pub fn free(currency: Currency) -> Self {
        Self {
            currency,
            mailboxes: Vec::new(),
            kept: Kept::default(),
            carried: Carried::default(),
            switchovers: Switchovers::default(),
            minimum: Price::FREE,
            pro_rata: true,
        }
    }

    /// Everything that is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mailboxes: Vec<Option<u64>> = self.mailboxes.iter().map(|tier| tier.up_to).collect();
        tiers("/mailboxes", "up_to", &mailboxes, &mut wrong);
        let kept: Vec<Option<u64>> = self.kept.tiers.iter().map(|tier| tier.up_to_gb).collect();
        tiers("/kept/tiers", "up_to_gb", &kept, &mut wrong);
        for (pointer, included) in [
            ("/kept/included_gb", self.kept.included_gb),
            ("/carried/included_gb", self.carried.included_gb),
            ("/switchovers/included", self.switchovers.included),
        ] {
            if included > MOST {
                wrong.push(Wrong { pointer: pointer.to_owned(), detail: format!("at most {MOST}") });
            }
        }
        wrong
    }
}

/// Tiers rise, and only the last has no end.
fn tiers(pointer: &str, field: &str, ends: &[Option<u64>], wrong: &mut Vec<Wrong>) {
    let mut complain = |index: usize, detail: &str| {
        wrong.push(Wrong { pointer: format!("{pointer}/{index}/{field}"), detail: detail.to_owned() });
    };
    let mut before = 0;
    for (index, end) in ends.iter().enumerate() {
        let is_last = index + 1 == ends.len();
        match end {
            None if is_last => {}
            None => complain(index, "only the last tier has no end"),
            Some(_) if is_last => complain(index, "the last tier has no end: leave it out"),
            Some(end) if *end <= before => complain(index, "each tier ends higher than the one before"),
            Some(end) if *end > MOST => complain(index, "too high"),
            Some(end) => before = *end,
        }
    }
    if ends.len() > MOST_TIERS {
        complain(MOST_TIERS, "at most 20 tiers");
    }
}
