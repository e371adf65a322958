//! Usage metered by what happens, months closed for good, and random histories counted a second time.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use understudy_billing::{Correction, MailboxUsage, Measured, Month, Plan, invoice_measured};
use understudy_database::billing;
use understudy_protocol::TenantId;
use uuid::Uuid;

use crate::service::Service;

const TENANT: TenantId = TenantId(1);

fn at(day: &str, seconds: i64) -> DateTime<Utc> {
    let day: NaiveDate = day.parse().unwrap();
    day.and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::seconds(seconds)
}

/// One thing after the other, as the gateways would do it, but at times of our choice.
impl Service {
    async fn protected_at(&self, address: &str, at: DateTime<Utc>) -> i64 {
        sqlx::query_scalar(
            "insert into mailbox (address, primary_server_id, standby_server_id, standby_address, created_at)
             select $1, p.server_id, s.server_id, $1, $2 from server p, server s where p.name = 'mail-a' and s.name = 'dr-1'
             returning mailbox_id",
        )
        .bind(address)
        .bind(at)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    async fn unprotected_at(&self, mailbox: i64, at: DateTime<Utc>) {
        sqlx::query("update mailbox set unprotected_at = $2 where mailbox_id = $1")
            .bind(mailbox)
            .bind(at)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    async fn received_at(&self, mailbox: i64, seq: i64, bytes: i64, at: DateTime<Utc>) {
        sqlx::query(
            "insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at,
                                      received_at)
             values ($1, 'outbound', $2, 1, false, ''::bytea, 1, $3, $4, $4)",
        )
        .bind(mailbox)
        .bind(seq)
        .bind(bytes)
        .bind(at)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn switched_at(&self, mailbox: i64, target: &str, at: DateTime<Utc>) {
        let run = Uuid::now_v7();
        sqlx::query("insert into run (run_id, kind, state) values ($1, 'switchover', 'done')")
            .bind(run)
            .execute(&self.pool)
            .await
            .unwrap();
        sqlx::query(
            "insert into switch (run_id, mailbox_id, target, mode, epoch, ended_at, outcome)
             values ($1, $2, $3, 'planned', 1, now(), 'done')",
        )
        .bind(run)
        .bind(mailbox)
        .bind(target)
        .execute(&self.pool)
        .await
        .unwrap();
        sqlx::query("update switch set flipped_at = $2 where run_id = $1")
            .bind(run)
            .bind(at)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    async fn prices(&self, from: &str, plan: serde_json::Value) {
        self.ask("PUT", "/api/v1/prices", Some(json!({"valid_from": from, "plan": plan}))).await.expect(200);
    }
}

#[tokio::test]
async fn a_month_is_closed_once_and_corrected_by_lines_of_later_ones() {
    let service = Service::with_servers().await;
    let ana = service.protected_at("ana@example.org", at("2025-01-11", 60)).await;
    service.received_at(ana, 1, 3_000_000_000, at("2025-01-12", 0)).await;
    service.switched_at(ana, "standby", at("2025-01-20", 0)).await;
    service.switched_at(ana, "primary", at("2025-01-21", 0)).await;
    service
        .prices(
            "2025-01",
            json!({"currency": "EUR", "mailboxes": [{"price": "3.10"}], "carried": {"price": "0.50"},
                                  "switchovers": {"price": "2.00"}}),
        )
        .await;
    // 21 of 31 days, 3 GB, one switchover; going home is free.
    let open = service.get("/api/v1/invoices/2025-01").await.expect(200).body;
    assert_eq!(
        (&open["total"], &open["recomputed_total"], &open["state"]),
        (&json!("5.60"), &json!("5.60"), &json!("open"))
    );
    service.post("/api/v1/invoices/2025-02/close", json!({})).await.expect(409);
    let closed = service.post("/api/v1/invoices/2025-01/close", json!({})).await.expect(200).body;
    assert_eq!((&closed["state"], &closed["total"]), (&json!("closed"), &json!("5.60")));

    // What comes late changes nothing that is closed, and is seen.
    service.received_at(ana, 2, 2_000_000_000, at("2025-01-30", 0)).await;
    let again = service.post("/api/v1/invoices/2025-01/close", json!({})).await.expect(200).body;
    assert_eq!((&again["total"], &again["lines"]), (&closed["total"], &closed["lines"]));
    let seen = service.get("/api/v1/invoices/2025-01").await.expect(200).body;
    assert_eq!((&seen["total"], &seen["recomputed_total"]), (&json!("5.60"), &json!("6.60")));
    let plan = json!({"plan": {"currency": "EUR"}, "valid_from": "2025-01"});
    service.ask("PUT", "/api/v1/prices", Some(plan)).await.expect(409);
    for sql in [
        "update invoice set total = 0",
        "delete from invoice",
        "truncate invoice cascade",
        "delete from usage_event",
        "update usage_event set at = now()",
    ] {
        assert!(sqlx::raw_sql(sql).execute(&service.pool).await.is_err(), "{sql} must be refused");
    }

    let correction = json!({"amount": "-0.60", "reason": "agreed", "address": "ana@example.org"});
    service.post("/api/v1/invoices/2025-02/corrections", correction.clone()).await.expect(409);
    let next = service.post("/api/v1/invoices/2025-01/corrections", correction).await.expect(201).body;
    assert_eq!((&next["month"], &next["total"]), (&json!("2025-02"), &json!("2.50")), "{next:#}");
    let line = next["lines"].as_array().unwrap().last().unwrap();
    assert_eq!((&line["position"], &line["note"]), (&json!("correction"), &json!("2025-01: agreed")));
    for wrong in [
        json!({"amount": "0", "reason": "a"}),
        json!({"amount": "1.005", "reason": "a"}),
        json!({"amount": "1", "reason": ""}),
    ] {
        service.post("/api/v1/invoices/2025-01/corrections", wrong).await.expect(422);
    }
}

#[tokio::test]
async fn a_report_is_csv_without_formulas_or_json() {
    let service = Service::with_servers().await;
    service.protected_at("=HYPERLINK(\"http://x\")@example.org", at("2025-01-01", 0)).await;
    service.prices("2025-01", json!({"currency": "EUR", "mailboxes": [{"price": "1.00"}]})).await;
    let path = "/api/v1/reports/billing?from=2025-01-16&to=2025-02-28";
    let report = service.get(path).await.expect(200).body;
    assert_eq!(report["totals"], json!([{"currency": "EUR", "amount": "1.52"}]), "{report:#}");
    let csv = service.get(&format!("{path}&format=csv")).await.expect(200);
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert!(csv.header("content-disposition").contains("understudy-billing-2025-01-16-2025-02-28.csv"));
    let text = csv.body.as_str().unwrap();
    assert!(text.contains("\"'=HYPERLINK(\"\"http://x\"\")@example.org\"") && text.ends_with("1.00,EUR,\n"), "{text}");
    for wrong in [
        "from=2025-02-01&to=2025-01-01",
        "from=x&to=2025-01-01",
        "from=2025-1-1&to=2025-01-02",
        "from=2000-01-01&to=2025-01-01",
    ] {
        service.get(&format!("/api/v1/reports/billing?{wrong}")).await.expect(400);
    }
    let viewer = format!("Bearer {}", service.token("viewer").await);
    service.ask_with("GET", path, None, &[("authorization", &viewer)]).await.expect(403);
    let billing = format!("Bearer {}", service.token("billing").await);
    service.ask_with("GET", path, None, &[("authorization", &billing)]).await.expect(200);
    let available = service.get("/api/v1/reports/availability?from=2025-01-01&to=2025-01-31").await.expect(200).body;
    assert_eq!(available["total"]["in_step_millipercent"], 100_000);
    assert_eq!(available["items"][0]["protected_seconds"], 31 * 86_400);
}

#[tokio::test]
async fn days_to_come_are_not_counted() {
    let service = Service::with_servers().await;
    let today = Utc::now().date_naive();
    service.protected_at("ann@example.org", Utc::now() - Days::new(1)).await;
    service.prices("2025-01", json!({"currency": "EUR", "mailboxes": [{"price": "100.00"}]})).await;
    let until = async |last: NaiveDate| {
        let path = format!("/api/v1/reports/billing?from={today}&to={last}");
        service.get(&path).await.expect(200).body["totals"].clone()
    };
    assert_eq!(until(today + Days::new(40)).await, until(today).await);
}

/// What is metered is what happened: the log, the journal and a plain count agree to the cent, whatever happened in which order.
#[tokio::test]
async fn random_histories_can_be_recomputed() {
    let seed = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("UNDERSTUDY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let service = Service::with_servers().await;
    service
        .prices(
            "2025-01",
            json!({"currency": "EUR", "mailboxes": [{"price": "2.00"}], "carried": {"price": "0.07"},
                                  "switchovers": {"included": 1, "price": "1.50"}}),
        )
        .await;
    let start: NaiveDate = "2025-01-01".parse().unwrap();
    // By address: the days protected, the bytes carried by day, the days of switchovers.
    type History = (Vec<NaiveDate>, Vec<(NaiveDate, i64)>, Vec<NaiveDate>);
    let mut known: Vec<History> = Vec::new();
    for number in 0..6 {
        let mut day = start + Days::new(random.random_range(0..30));
        let (mut days, mut carried, mut switched) = (Vec::new(), Vec::new(), Vec::new());
        let moment = move |day: NaiveDate, random: &mut StdRng| {
            day.and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::milliseconds(random.random_range(0..86_400_000))
        };
        for _ in 0..random.random_range(1..3) {
            let last = day + Days::new(random.random_range(1..40));
            let mailbox = service.protected_at(&format!("user{number}@example.org"), moment(day, &mut random)).await;
            for seq in 1..random.random_range(2..12) {
                let on = (day + Days::new(random.random_range(0..20))).min(last);
                let bytes = random.random_range(0..5_000_000_000);
                service.received_at(mailbox, seq, bytes, moment(on, &mut random)).await;
                carried.push((on, bytes));
            }
            for _ in 0..random.random_range(0..4) {
                let on = (day + Days::new(random.random_range(0..20))).min(last);
                service.switched_at(mailbox, "standby", moment(on, &mut random)).await;
                switched.push(on);
            }
            service.unprotected_at(mailbox, moment(last, &mut random)).await;
            days.extend(day.iter_days().take_while(|day| *day <= last));
            day = last + Days::new(random.random_range(0..10));
        }
        days.sort_unstable();
        days.dedup();
        known.push((days, carried, switched));
    }
    let cents = |parts: i64, divisor: i64| (parts * 2 + divisor) / (divisor * 2);
    for month in 1..=5_u32 {
        let within = |day: &NaiveDate| day.year() == 2025 && day.month() == month;
        let month_days = i64::from(start.with_month(month).unwrap().num_days_in_month());
        let expected: i64 = known
            .iter()
            .map(|(days, carried, switched)| {
                let days = days.iter().filter(|day| within(day)).count() as i64;
                let bytes: i64 = carried.iter().filter(|(day, _)| within(day)).map(|(_, bytes)| bytes).sum();
                let switched = switched.iter().filter(|day| within(day)).count() as i64;
                if days == 0 {
                    return 0;
                }
                cents(200 * days, month_days) + cents(7 * bytes, 1_000_000_000) + (switched - 1).max(0) * 150
            })
            .sum();
        let text = format!("{}.{:02}", expected / 100, expected % 100);
        let invoice = service.get(&format!("/api/v1/invoices/2025-{month:02}")).await.expect(200).body;
        assert_eq!(
            (&invoice["total"], &invoice["recomputed_total"]),
            (&json!(text), &json!(text)),
            "{month} {invoice:#}"
        );
    }
    let (from, to) = (start, "2025-12-31".parse().unwrap());
    let metered: Vec<(i64, NaiveDate, i64)> = billing::days(&service.pool, TENANT, from, to)
        .await
        .unwrap()
        .into_iter()
        .filter(|day| day.carried_bytes > 0)
        .map(|day| (day.mailbox_id, day.day, day.carried_bytes))
        .collect();
    assert_eq!(metered, billing::recount_carried(&service.pool, TENANT, from, to).await.unwrap());

    // An auditor has nothing but the audit, and comes to the same cents.
    let mut closed = 0;
    for month in 1..=6 {
        if service.post(&format!("/api/v1/invoices/2025-{month:02}/close"), json!({})).await.expect(200).body["lines"]
            != json!([])
        {
            closed += 1;
        }
        let correction = json!({"amount": "-0.03", "reason": "agreed"});
        service.post(&format!("/api/v1/invoices/2025-{month:02}/corrections"), correction).await.expect(201);
    }
    let exported = service.get("/api/v1/audit/export").await.expect(200).body;
    let entries: Vec<Value> =
        exported.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(closed > 0 && recomputed_from(&entries) == 6, "{closed} months of six had something to bill");
}

/// Computes every closed month again from the audit alone; how many there are.
fn recomputed_from(entries: &[Value]) -> usize {
    let called = |action: &'static str| entries.iter().filter(move |entry| entry["action"] == action);
    let day = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap().date_naive();
    let mut months = 0;
    for noted in called("invoice added").map(|entry| &entry["after"]) {
        let month = noted["month"].as_str().unwrap();
        let piece = month[..7].parse::<Month>().unwrap().whole();
        let used = called("usage closed").filter(|entry| entry["after"]["month"] == month[..7]);
        let measured: Vec<(MailboxUsage, Measured)> = used
            .map(|entry| {
                let after = &entry["after"];
                let large = |name: &str| after[name].as_str().unwrap().parse().unwrap();
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let mailbox = MailboxUsage {
                    address: text(&entry["subject"]),
                    primary: text(&after["primary"]),
                    ..MailboxUsage::default()
                };
                let measured = Measured {
                    days: u32::try_from(after["days"].as_u64().unwrap()).unwrap(),
                    kept_byte_days: large("kept_byte_days"),
                    carried_bytes: large("carried_bytes"),
                    switchovers: after["switchovers"].as_u64().unwrap(),
                };
                (mailbox, measured)
            })
            .collect();
        for (mailbox, measured) in &measured {
            let of = |action| called(action).filter(|entry| entry["subject"] == mailbox.address.as_str());
            let ends: Vec<NaiveDate> =
                of("mailbox changed").map(|entry| day(&entry["after"]["unprotected_at"])).collect();
            let begins = of("mailbox added").map(|entry| day(&entry["after"]["created_at"]));
            let spans: Vec<(NaiveDate, NaiveDate)> = begins.zip(ends).collect();
            let protected = |day: &NaiveDate| spans.iter().any(|(first, last)| first <= day && day <= last);
            let days = piece.first.iter_days().take_while(|day| *day <= piece.last).filter(protected).count();
            assert_eq!(measured.days as usize, days, "{month} {}", mailbox.address);
        }
        let corrections: Vec<Correction> = called("invoice correction added")
            .map(|entry| &entry["after"])
            .filter(|correction| correction["booked_in"] == month)
            .map(|correction| Correction {
                month: correction["month"].as_str().unwrap()[..7].parse().unwrap(),
                address: String::new(),
                amount: correction["amount"].as_i64().unwrap(),
                reason: String::new(),
            })
            .collect();
        let plan: Plan = serde_json::from_value(noted["plan"].clone()).unwrap();
        let measured = measured.iter().map(|(mailbox, measured)| (mailbox, *measured)).collect();
        let total = invoice_measured(&plan, piece, measured, &corrections).total;
        assert_eq!(total, noted["total"].as_i64().unwrap(), "{month}");
        months += 1;
    }
    months
}
