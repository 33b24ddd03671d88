use serde_json::json;

use super::*;

/// The answer to a file of `items`, of which so many were rejected.
fn accepted(items: u64, rejected: u64, state: &str) -> AcceptedImport {
    let error = (state == "interrupted").then_some("line 7: not JSON");
    serde_json::from_value(json!({
        "import_id": "0190a6b8-0000-7000-8000-000000000001", "source": "vendors", "state": state,
        "items": items, "published": items - rejected, "rejected": rejected, "error": error,
        "rejections": (0..rejected).map(|line| json!({
            "line": line + 2, "field": "amount", "message": "is missing or null",
        })).collect::<Vec<_>>(),
        "rejections_omitted": 0, "status": "/imports/0190a6b8-0000-7000-8000-000000000001",
    }))
    .unwrap()
}

/// What the database knows of it: created, duplicate, rejected and dead ones.
fn progress(
    total: u64,
    state: &str,
    [created, duplicate, rejected, dead]: [u64; 4],
) -> ImportStatus {
    let error = (state == "interrupted").then_some("line 7: not JSON");
    serde_json::from_value(json!({
        "import_id": "0190a6b8-0000-7000-8000-000000000001", "source": "vendors",
        "name": "may.csv", "state": state, "error": error, "total": total,
        "waiting": total - created - duplicate - rejected - dead,
        "created": created, "updated": 0, "duplicate": duplicate, "stale": 0, "ignored": 0,
        "rejected": rejected, "dead": dead, "duplicate_rate": 0.5,
        "started_at": "2026-01-02T03:04:05Z", "received_at": null, "completed_at": null,
        "elapsed_ms": 2000, "batches": 4, "average_batch_ms": 500,
        "items": "/imports/0190a6b8-0000-7000-8000-000000000001/items",
    }))
    .unwrap()
}

fn report(
    accepted: &AcceptedImport,
    known: Option<ImportStatus>,
    ended: EndReason,
) -> ImportReport {
    let name = Some("may.csv".to_owned());
    let trouble = known.is_none().then(|| "no worker has heard of it yet".to_owned());
    ImportReport::from_accepted("vendors".to_owned(), name, accepted, known, ended, trouble)
}

/// A report as it ends, its exit code, and what it must say and must not.
struct Case {
    report: ImportReport,
    code: u8,
    says: &'static [&'static str],
    says_not: &'static [&'static str],
}

fn known(counts: [u64; 4]) -> ImportStatus {
    progress(10, "received", counts)
}

#[test]
fn what_is_settled_has_its_code_and_its_words() {
    let all = accepted(10, 0, "received");
    hold(&[
        Case {
            report: report(&all, Some(known([10, 0, 0, 0])), EndReason::Completed),
            code: EXIT_DONE,
            says: &["may.csv at vendors, import 0190a6b8-", "Every item has its outcome", "2.0"],
            says_not: &["WARNING", "waiting", "LINE", "?"],
        },
        // All over again.
        Case {
            report: report(&all, Some(known([0, 10, 0, 0])), EndReason::Completed),
            code: EXIT_DONE,
            says: &["WARNING: 10 were known already (100.0 %): duplicates change nothing."],
            says_not: &["waiting"],
        },
        Case {
            report: report(&all, Some(known([9, 0, 0, 1])), EndReason::Completed),
            code: EXIT_PARTLY,
            says: &["1 dead; which ones could not be asked", "dead list --source vendors"],
            says_not: &["Does a worker run"],
        },
        Case {
            report: report(&all, Some(known([0, 0, 0, 10])), EndReason::Completed),
            code: EXIT_FAILED,
            says: &["dead list"],
            says_not: &["WARNING"],
        },
        Case {
            report: report(
                &accepted(10, 2, "received"),
                Some(known([8, 0, 2, 0])),
                EndReason::Completed,
            ),
            code: EXIT_PARTLY,
            says: &["rejected:", "amount: is missing or null"],
            says_not: &["dead list", "more"],
        },
        Case {
            report: report(
                &accepted(10, 10, "received"),
                Some(known([0, 0, 10, 0])),
                EndReason::Completed,
            ),
            code: EXIT_FAILED,
            says: &["rejected:"],
            says_not: &["dead list"],
        },
    ]);
}

#[test]
fn what_still_waits_is_said_and_so_is_what_nobody_knows() {
    let all = accepted(10, 0, "received");
    hold(&[
        // Some were slow.
        Case {
            report: report(&all, Some(known([7, 0, 0, 0])), EndReason::TimedOut),
            code: EXIT_PARTLY,
            says: &["3 still wait;", "nothing is lost", "tallyhook import --status 0190a6b8-"],
            says_not: &["Every item"],
        },
        Case {
            report: report(&all, Some(known([7, 0, 0, 0])), EndReason::Interrupted),
            code: EXIT_PARTLY,
            says: &["3 still wait;", "tallyhook import --status 0190a6b8-"],
            says_not: &["Every item"],
        },
        // No worker runs: nobody knows, and nobody says 0.
        Case {
            report: report(&accepted(10, 1, "received"), None, EndReason::TimedOut),
            code: EXIT_PARTLY,
            says: &[
                "?",
                "sent, outcome unknown",
                "9 still wait (no worker has heard of it yet)",
                "Does a worker run?",
            ],
            says_not: &["WARNING", "Every item"],
        },
        // Nobody waited: what is durable is all that was asked for.
        Case {
            report: report(&all, None, EndReason::NotWaited),
            code: EXIT_DONE,
            says: &["10 wait to be applied", "--status"],
            says_not: &["still wait", "Every item"],
        },
        Case {
            report: report(&accepted(10, 1, "received"), None, EndReason::NotWaited),
            code: EXIT_PARTLY,
            says: &["rejected:"],
            says_not: &[],
        },
        Case {
            report: report(&accepted(10, 10, "received"), None, EndReason::NotWaited),
            code: EXIT_FAILED,
            says: &["rejected:"],
            says_not: &["wait to be applied"],
        },
    ]);
}

#[test]
fn a_file_that_broke_off_is_never_done_and_an_empty_one_is() {
    hold(&[
        // It broke off in the middle.
        Case {
            report: report(
                &accepted(10, 0, "interrupted"),
                Some(progress(10, "interrupted", [10, 0, 0, 0])),
                EndReason::Completed,
            ),
            code: EXIT_PARTLY,
            says: &["BROKEN OFF: line 7: not JSON.", "send the whole file again"],
            says_not: &[],
        },
        Case {
            report: report(
                &accepted(2, 2, "interrupted"),
                Some(progress(2, "interrupted", [0, 0, 2, 0])),
                EndReason::Completed,
            ),
            code: EXIT_FAILED,
            says: &["BROKEN OFF"],
            says_not: &[],
        },
        Case {
            report: report(&accepted(0, 0, "received"), None, EndReason::Completed),
            code: EXIT_DONE,
            says: &["The file holds no items."],
            says_not: &["OUTCOME", "WARNING"],
        },
    ]);
}

#[test]
fn whoever_asks_later_is_told_the_same() {
    hold(&[
        Case {
            report: ImportReport::from_status(progress(10, "received", [9, 1, 0, 0])),
            code: EXIT_DONE,
            says: &["WARNING: 1 was known already (10.0 %)", "Every item has its outcome"],
            says_not: &[],
        },
        Case {
            report: ImportReport::from_status(ImportStatus {
                past_retention: 10,
                ..progress(10, "received", [9, 0, 1, 0])
            }),
            code: EXIT_PARTLY,
            says: &["only counted: past retention", "Receipts are gone when"],
            says_not: &[],
        },
        Case {
            report: ImportReport::from_status(progress(10, "received", [9, 0, 0, 0])),
            code: EXIT_PARTLY,
            says: &["1 wait to be applied"],
            says_not: &["Every item"],
        },
        Case {
            report: ImportReport::from_status(progress(10, "receiving", [10, 0, 0, 0])),
            code: EXIT_PARTLY,
            says: &["The file still comes in, or its receiver died."],
            says_not: &["Every item"],
        },
    ]);
}

fn hold(cases: &[Case]) {
    for (index, Case { report, code, says, says_not }) in cases.iter().enumerate() {
        let text = crate::cli::import::summary::render(report, false);
        assert_eq!(report.exit_code(), *code, "case {index}: {text}");
        for said in *says {
            assert!(text.contains(said), "case {index} must say {said:?}: {text}");
        }
        for unsaid in *says_not {
            assert!(!text.contains(unsaid), "case {index} must not say {unsaid:?}: {text}");
        }
    }
}

#[test]
fn a_check_says_what_would_be() {
    let accepted = accepted(4, 1, "interrupted");
    let known = progress(4, "interrupted", [1, 1, 1, 1]);
    let mut report = report(&accepted, Some(known), EndReason::Checked);
    report.import_id = None;
    let dead = "invoice 7 stands with transaction a".to_owned();
    report.dead_letters = vec![ItemProblem { line: 9, number: Some("7".to_owned()), error: dead }];
    let text = crate::cli::import::summary::render(&report, false);
    assert_eq!(report.exit_code(), EXIT_PARTLY);
    for said in [
        "checked, nothing was sent",
        "would be created",
        "would be dead:",
        "1 is known already",
        "Nothing behind that can be read",
        "7       invoice 7 stands with",
    ] {
        assert!(text.contains(said), "{said:?} in {text}");
    }
    assert!(!text.contains("dead list") && !text.contains("--status"), "{text}");
}

#[test]
fn the_first_lines_at_fault_are_shown_and_the_rest_counted() {
    let accepted = accepted(40, 25, "received");
    let report = report(&accepted, None, EndReason::NotWaited);
    assert_eq!(report.rejections.len(), 25);
    let shown = crate::cli::import::summary::render(&report, false);
    assert!(shown.contains("and 5 more; --report FILE has all"), "{shown}");
    assert_eq!(shown.matches("is missing or null").count(), 20);
    let reported = crate::cli::import::summary::render(&report, true);
    assert!(reported.contains("and 5 more, all in the report"), "{reported}");
}

#[test]
fn fields_of_one_item_are_told_together() {
    let rejection = |line, field: &str, message: &str| RejectedField {
        line,
        field: field.to_owned(),
        message: message.to_owned(),
    };
    let told = group_rejected_fields(&[
        rejection(3, "amount", "is no number"),
        rejection(3, "currency", "is no currency"),
        // The same field again: another element of the array, on the same line.
        rejection(3, "amount", "is missing or null"),
        rejection(4, "", "is not UTF-8"),
    ]);
    let told: Vec<_> = told.iter().map(|one| (one.line, one.error.as_str())).collect();
    assert_eq!(
        told,
        [
            (3, "amount: is no number; currency: is no currency"),
            (3, "amount: is missing or null"),
            (4, "is not UTF-8"),
        ]
    );
}

#[test]
fn strangers_texts_do_nothing_to_the_terminal() {
    let mut report = report(&accepted(1, 1, "received"), None, EndReason::NotWaited);
    report.rejections[0].error = "\u{1b}[2Jgone".to_owned();
    report.name = Some("\u{1b}[31m.csv".to_owned());
    assert!(!crate::cli::import::summary::render(&report, false).contains('\u{1b}'));
}

#[test]
fn what_nobody_knows_is_no_zero_in_json_either() {
    let unknown = report(&accepted(3, 1, "received"), None, EndReason::TimedOut);
    let told = serde_json::to_value(&unknown).unwrap();
    assert_eq!(told["created"], serde_json::Value::Null);
    assert_eq!((&told["waiting"], &told["rejected"]), (&json!(2), &json!(1)));
    assert_eq!((&told["ended"], &told["state"]), (&json!("timed_out"), &json!("received")));
    let settled = report(
        &accepted(3, 1, "received"),
        Some(progress(3, "received", [2, 0, 1, 0])),
        EndReason::Completed,
    );
    let told = serde_json::to_value(&settled).unwrap();
    assert_eq!((&told["created"], &told["batches"]), (&json!(2), &json!(4)));
}
