#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

use chrono::{Datelike, Days, NaiveDate};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn plan(json: &str) -> Plan {
    let plan: Plan = serde_json::from_str(json).unwrap();
    assert_eq!(plan.check(), []);
    plan
}

fn mailbox(address: &str, first: &str, last: Option<&str>) -> MailboxUsage {
    MailboxUsage {
        address: address.to_owned(),
        primary: "mail-a".to_owned(),
        spans: vec![Span { first: day(first), last: last.map(day) }],
        ..MailboxUsage::default()
    }
}

fn amounts(invoice: &Invoice) -> Vec<(Position, i64)> {
    invoice.lines.iter().map(|line| (line.position, line.amount)).collect()
}

#[test]
fn prices_are_texts_with_six_places() {
    for (text, shown) in [("2.5", "2.50"), ("0.000001", "0.000001"), ("1000000", "1000000.00"), ("0", "0.00")] {
        assert_eq!(text.parse::<Price>().unwrap().to_string(), shown);
    }
    for text in ["", ".5", "5.", "-1", "1e3", "1,5", "0.0000001", "1000000.000001", " 1", "9999999999999", "NaN", "+1"]
    {
        assert!(text.parse::<Price>().is_err(), "`{text}` is no price");
    }
    assert!(serde_json::from_str::<Price>("2.5").is_err(), "a number of JSON is a floating-point number");
}

#[test]
fn amounts_have_the_places_of_their_currency() {
    let shown = |code: &str, minor| Money { minor, currency: code.parse().unwrap() }.to_string();
    assert_eq!(shown("EUR", -5), "-0.05");
    assert_eq!(shown("JPY", 1234), "1234");
    assert_eq!(shown("KWD", 1234), "1.234");
    let euro: Currency = "EUR".parse().unwrap();
    assert_eq!(euro.amount("-12.34").unwrap().minor, -1234);
    assert!(euro.amount("0.001").is_err() && "XXX".parse::<Currency>().is_err());
}

#[test]
fn a_mailbox_costs_the_days_it_was_protected() {
    let plan = plan(r#"{"currency":"EUR","mailboxes":[{"price":"3.00"}]}"#);
    let november: Month = "2026-11".parse().unwrap();
    let usage = [
        mailbox("ana", "2026-01-01", None),
        mailbox("bob", "2026-11-16", None),
        mailbox("cy", "2026-10-01", Some("2026-11-01")),
        mailbox("dan", "2026-12-01", None),
    ];
    let invoice = invoice(&plan, november.whole(), &usage, &[]);
    assert_eq!(amounts(&invoice), [(Position::Mailbox, 300), (Position::Mailbox, 150), (Position::Mailbox, 10)]);
    assert_eq!(invoice.total, 460);
}

/// Ended and protected again on the same day: one day.
#[test]
fn a_day_is_charged_once() {
    let plan = plan(r#"{"currency":"EUR","mailboxes":[{"price":"30.00"}]}"#);
    let mut usage = mailbox("ana", "2026-11-01", Some("2026-11-10"));
    usage.spans.push(Span { first: day("2026-11-10"), last: Some(day("2026-11-12")) });
    let november: Month = "2026-11".parse().unwrap();
    assert_eq!(invoice(&plan, november.whole(), &[usage], &[]).total, 1200);
}

#[test]
fn volume_tiers_included_amounts_and_minimum() {
    let plan = plan(
        r#"{"currency":"EUR","mailboxes":[{"up_to":2,"price":"2.00"},{"price":"1.00"}],
            "kept":{"included_gb":5,"tiers":[{"up_to_gb":10,"price":"0.10"},{"price":"0.05"}]},
            "carried":{"included_gb":1,"price":"0.50"},"switchovers":{"included":1,"price":"4.00"},"minimum":"20.00"}"#,
    );
    let mut ana = mailbox("ana", "2026-11-01", None);
    ana.kept = vec![(day("2026-10-30"), 25_000_000_000)];
    ana.carried = vec![(day("2026-11-03"), 2_000_000_000), (day("2026-11-30"), 1_000_000_000), (day("2026-12-01"), 9)];
    ana.switchovers = vec![day("2026-11-05"), day("2026-11-06"), day("2026-11-07")];
    let usage = [ana, mailbox("bob", "2026-11-01", None), mailbox("cy", "2026-11-01", None)];
    let november: Month = "2026-11".parse().unwrap();
    let priced = invoice(&plan, november.whole(), &usage, &[]);
    assert_eq!(
        amounts(&priced),
        [
            (Position::Mailbox, 200),
            // 25 GB, 5 included: 10 at 0.10, 10 at 0.05.
            (Position::Kept, 150),
            // 3 GB, 1 included.
            (Position::Carried, 100),
            (Position::Switchovers, 800),
            (Position::Mailbox, 200),
            (Position::Mailbox, 100),
            (Position::Minimum, 450),
        ]
    );
    assert_eq!(priced.total, 2000);
    let correction = Correction {
        month: "2026-09".parse().unwrap(),
        address: "ana".to_owned(),
        amount: -123,
        reason: "double".to_owned(),
    };
    assert_eq!(invoice(&plan, november.whole(), &usage, &[correction]).total, 1877);
}

#[test]
fn refuses_plans_that_cannot_be_meant() {
    let wrong = |json: &str| -> Vec<String> {
        serde_json::from_str::<Plan>(json).unwrap().check().into_iter().map(|wrong| wrong.pointer).collect()
    };
    assert_eq!(wrong(r#"{"currency":"EUR","mailboxes":[{"up_to":5,"price":"1"}]}"#), ["/mailboxes/0/up_to"]);
    assert_eq!(
        wrong(
            r#"{"currency":"EUR","kept":{"tiers":[{"up_to_gb":5,"price":"1"},{"up_to_gb":5,"price":"1"},{"price":"1"}]}}"#
        ),
        ["/kept/tiers/1/up_to_gb"]
    );
    for json in [
        r#"{"currency":"EUR","minimum":"-1"}"#,
        r#"{"currency":"EUR","minimum":1.5}"#,
        r#"{"currency":"DOGE"}"#,
        r#"{"currency":"EUR","x":1}"#,
    ] {
        assert!(serde_json::from_str::<Plan>(json).is_err(), "{json}");
    }
}

#[test]
fn csv_holds_no_formula() {
    for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "|cmd", "%0"] {
        assert!(cell(text).starts_with('\''), "{text:?}");
    }
    assert_eq!(cell("ana@example.org"), "ana@example.org");
    let plan = plan(r#"{"currency":"EUR","mailboxes":[{"price":"1"}]}"#);
    let mut usage = mailbox("=HYPERLINK(\"http://x\",\"a\")\r\nx", "2026-11-01", None);
    usage.group = "@group, with \"quotes\"".to_owned();
    let november: Month = "2026-11".parse().unwrap();
    let text = csv_report([&invoice(&plan, november.whole(), &[usage], &[])]).unwrap();
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().flatten().all(|cell| !cell.starts_with(['=', '+', '@', '\t', '\r'])), "{text}");
    assert_eq!(&rows[0][6], "'@group, with \"quotes\"");
}

/// Random histories, priced a second time by the simplest program that could: one day and one byte-day at a time, in fractions.
#[test]
fn random_histories_add_up_to_the_cent() {
    let seed = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("UNDERSTUDY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..300 {
        let plan = random_plan(&mut random);
        let usage: Vec<MailboxUsage> =
            (0..random.random_range(0..12)).map(|number| random_usage(&mut random, number)).collect();
        let from = day("2026-01-01") + Days::new(random.random_range(0..300));
        let to = from + Days::new(random.random_range(0..100));
        for piece in Piece::between(from, to) {
            let priced = invoice(&plan, piece, &usage, &[]);
            assert_eq!(priced.total, priced.lines.iter().map(|line| line.amount).sum::<i64>());
            assert_eq!(priced.total, simplest(&plan, piece, &usage), "{plan:?} {piece:?} {usage:?} {:?}", priced.lines);
            // The order in which usage is read does not matter.
            let mut turned = usage.clone();
            turned.reverse();
            assert_eq!(invoice(&plan, piece, &turned, &[]), priced);
            let text = csv_report([&priced]).unwrap();
            let mut reader = ::csv::Reader::from_reader(text.as_bytes());
            let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            let minor = |row: &::csv::StringRecord| plan.currency.amount(&row[9]).unwrap().minor;
            let (total, lines) = rows.split_last().unwrap();
            assert_eq!(minor(total), lines.iter().map(minor).sum::<i64>());
        }
    }
}

fn random_price(random: &mut StdRng) -> Price {
    Price(random.random_range(0..=20_000_000))
}

fn random_plan(random: &mut StdRng) -> Plan {
    let currency = ["EUR", "JPY", "KWD"][random.random_range(0..3)].parse().unwrap();
    let mut plan = Plan::free(currency);
    let end = random.random_range(1..6);
    plan.mailboxes = vec![
        MailboxTier { up_to: Some(end), price: random_price(random) },
        MailboxTier { up_to: Some(end + random.random_range(1..4)), price: random_price(random) },
        MailboxTier { up_to: None, price: random_price(random) },
    ];
    let first = random.random_range(1..20);
    plan.kept.included_gb = random.random_range(0..5);
    plan.kept.tiers = vec![
        Tier { up_to_gb: Some(first), price: random_price(random) },
        Tier { up_to_gb: None, price: random_price(random) },
    ];
    plan.carried = Carried { included_gb: random.random_range(0..3), price: random_price(random) };
    plan.switchovers = Switchovers { included: random.random_range(0..3), price: random_price(random) };
    plan.minimum = random_price(random);
    plan.pro_rata = random.random();
    assert_eq!(plan.check(), []);
    plan
}

fn random_usage(random: &mut StdRng, number: usize) -> MailboxUsage {
    let start = day("2025-12-01");
    let mut usage =
        MailboxUsage { address: format!("user{number}"), primary: "mail-a".to_owned(), ..MailboxUsage::default() };
    for _ in 0..random.random_range(1..4) {
        let first = start + Days::new(random.random_range(0..400));
        let last = random.random::<bool>().then(|| first + Days::new(random.random_range(0..60)));
        usage.spans.push(Span { first, last });
    }
    // A day has one value.
    let mut kept = std::collections::BTreeMap::new();
    for _ in 0..random.random_range(0..20) {
        kept.insert(start + Days::new(random.random_range(0..400)), random.random_range(0..60_000_000_000));
    }
    usage.kept = kept.into_iter().collect();
    for _ in 0..random.random_range(0..30) {
        usage.carried.push((start + Days::new(random.random_range(0..400)), random.random_range(0..3_000_000_000)));
    }
    for _ in 0..random.random_range(0..6) {
        usage.switchovers.push(start + Days::new(random.random_range(0..400)));
    }
    usage
}

/// A number of 10⁻⁶ parts as a fraction, rounded to smallest units by comparing remainders, not by the arithmetic above.
fn cents(plan: &Plan, parts: u128, divisor: u128) -> i64 {
    let divisor = divisor * 10_u128.pow(6 - u32::from(plan.currency.places()));
    let (whole, rest) = (parts / divisor, parts % divisor);
    i64::try_from(whole).unwrap() + i64::from(rest * 2 >= divisor)
}

fn simplest(plan: &Plan, piece: Piece, usage: &[MailboxUsage]) -> i64 {
    let month_days = u128::from(piece.month.days());
    let mut sorted: Vec<&MailboxUsage> = usage.iter().collect();
    sorted.sort_by_key(|mailbox| &mailbox.address);
    let (mut total, mut mailbox_days) = (0, 0_u128);
    for mailbox in sorted {
        let days: Vec<NaiveDate> = piece.first.iter_days().take_while(|day| *day <= piece.last).collect();
        let protected: Vec<NaiveDate> = days
            .iter()
            .copied()
            .filter(|day| {
                mailbox.spans.iter().any(|span| span.first <= *day && span.last.is_none_or(|last| last >= *day))
            })
            .collect();
        let charged = if protected.is_empty() {
            0
        } else if plan.pro_rata {
            protected.len() as u128
        } else {
            month_days
        };
        let mut parts = 0;
        for number in mailbox_days..mailbox_days + charged {
            let tier =
                plan.mailboxes.iter().find(|tier| tier.up_to.is_none_or(|end| number < u128::from(end) * month_days));
            parts += tier.unwrap().price.0.unsigned_abs() as u128;
        }
        mailbox_days += charged;
        total += cents(plan, parts, month_days);

        let kept: u128 = protected
            .iter()
            .map(|day| {
                mailbox
                    .kept
                    .iter()
                    .filter(|(at, _)| at <= day)
                    .max_by_key(|(at, _)| *at)
                    .map_or(0, |(_, bytes)| u128::from(*bytes))
            })
            .sum();
        let gb_days = 1_000_000_000 * protected.len() as u128;
        let beyond = kept.saturating_sub(u128::from(plan.kept.included_gb) * gb_days);
        let end = u128::from(plan.kept.tiers[0].up_to_gb.unwrap()) * gb_days;
        let parts = beyond.min(end) * plan.kept.tiers[0].price.0.unsigned_abs() as u128
            + beyond.saturating_sub(end) * plan.kept.tiers[1].price.0.unsigned_abs() as u128;
        total += cents(plan, parts, month_days * 1_000_000_000);

        let within = |day: NaiveDate| days.contains(&day);
        let carried: u128 =
            mailbox.carried.iter().filter(|(day, _)| within(*day)).map(|(_, bytes)| u128::from(*bytes)).sum();
        let beyond = carried.saturating_sub(u128::from(plan.carried.included_gb) * 1_000_000_000);
        total += cents(plan, beyond * plan.carried.price.0.unsigned_abs() as u128, 1_000_000_000);

        let switched = mailbox.switchovers.iter().filter(|day| within(**day)).count() as u128;
        let beyond = switched.saturating_sub(u128::from(plan.switchovers.included));
        total += cents(plan, beyond * plan.switchovers.price.0.unsigned_abs() as u128, 1);
    }
    assert_eq!(piece.month.days(), piece.month.last().day());
    total.max(cents(plan, plan.minimum.0.unsigned_abs() as u128 * u128::from(piece.days()), month_days))
}
