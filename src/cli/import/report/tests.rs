use serde_json::json;

use super::*;

/// The response to a file with these numbers of items and rejected items.
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

/// A status with these numbers of created, duplicate, rejected and dead items.
fn status(total: u64, state: &str, [created, duplicate, rejected, dead]: [u64; 4]) -> ImportStatus {
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
    status: Option<ImportStatus>,
    ended: EndReason,
) -> ImportReport {
    let name = Some("may.csv".to_owned());
    let error = status.is_none().then(|| "no worker has recorded it yet".to_owned());
    ImportReport::from_accepted("vendors".to_owned(), name, accepted, status, ended, error)
}

/// A report, its exit code, and texts that its summary has and does not have.
struct Case {
    report: ImportReport,
    code: u8,
    says: &'static [&'static str],
    says_not: &'static [&'static str],
}

fn received(counts: [u64; 4]) -> ImportStatus {
    status(10, "received", counts)
}

#[test]
fn report_completed_has_exit_code_and_summary() {
    let all = accepted(10, 0, "received");
    assert_cases(&[
        Case {
            report: report(&all, Some(received([10, 0, 0, 0])), EndReason::Completed),
            code: EXIT_DONE,
            says: &[
                "may.csv at vendors, import 0190a6b8-",
                "Every item has a final outcome",
                "2.0",
            ],
            says_not: &["WARNING", "waiting", "LINE", "?"],
        },
        // The same file again.
        Case {
            report: report(&all, Some(received([0, 10, 0, 0])), EndReason::Completed),
            code: EXIT_DONE,
            says: &["WARNING: 10 were known already (100.0 %): duplicates change nothing."],
            says_not: &["waiting"],
        },
        Case {
            report: report(&all, Some(received([9, 0, 0, 1])), EndReason::Completed),
            code: EXIT_PARTLY,
            says: &["1 dead; they could not be listed", "dead list --source vendors"],
            says_not: &["Check that a worker runs"],
        },
        Case {
            report: report(&all, Some(received([0, 0, 0, 10])), EndReason::Completed),
            code: EXIT_FAILED,
            says: &["dead list"],
            says_not: &["WARNING"],
        },
        Case {
            report: report(
                &accepted(10, 2, "received"),
                Some(received([8, 0, 2, 0])),
                EndReason::Completed,
            ),
            code: EXIT_PARTLY,
            says: &["rejected:", "amount: is missing or null"],
            says_not: &["dead list", "more"],
        },
        Case {
            report: report(
                &accepted(10, 10, "received"),
                Some(received([0, 0, 10, 0])),
                EndReason::Completed,
            ),
            code: EXIT_FAILED,
            says: &["rejected:"],
            says_not: &["dead list"],
        },
    ]);
}

#[test]
fn report_waiting_names_waiting_and_unknown_items() {
    let all = accepted(10, 0, "received");
    assert_cases(&[
        // Some were slow.
        Case {
            report: report(&all, Some(received([7, 0, 0, 0])), EndReason::TimedOut),
            code: EXIT_PARTLY,
            says: &["3 still wait;", "nothing is lost", "tallyhook import --status 0190a6b8-"],
            says_not: &["Every item"],
        },
        Case {
            report: report(&all, Some(received([7, 0, 0, 0])), EndReason::Interrupted),
            code: EXIT_PARTLY,
            says: &["3 still wait;", "tallyhook import --status 0190a6b8-"],
            says_not: &["Every item"],
        },
        // Without a worker the counts are unknown, not 0.
        Case {
            report: report(&accepted(10, 1, "received"), None, EndReason::TimedOut),
            code: EXIT_PARTLY,
            says: &[
                "?",
                "sent, outcome unknown",
                "9 still wait (no worker has recorded it yet)",
                "Check that a worker runs.",
            ],
            says_not: &["WARNING", "Every item"],
        },
        // --no-wait: published items are enough.
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
fn report_interrupted_file_fails_and_empty_file_is_done() {
    assert_cases(&[
        // Interrupted in the middle.
        Case {
            report: report(
                &accepted(10, 0, "interrupted"),
                Some(status(10, "interrupted", [10, 0, 0, 0])),
                EndReason::Completed,
            ),
            code: EXIT_PARTLY,
            says: &["INTERRUPTED: line 7: not JSON.", "send the whole file again"],
            says_not: &[],
        },
        Case {
            report: report(
                &accepted(2, 2, "interrupted"),
                Some(status(2, "interrupted", [0, 0, 2, 0])),
                EndReason::Completed,
            ),
            code: EXIT_FAILED,
            says: &["INTERRUPTED"],
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
fn report_from_status_has_exit_code_and_summary() {
    assert_cases(&[
        Case {
            report: ImportReport::from_status(status(10, "received", [9, 1, 0, 0])),
            code: EXIT_DONE,
            says: &["WARNING: 1 was known already (10.0 %)", "Every item has a final outcome"],
            says_not: &[],
        },
        Case {
            report: ImportReport::from_status(ImportStatus {
                past_retention: 10,
                ..status(10, "received", [9, 0, 1, 0])
            }),
            code: EXIT_PARTLY,
            says: &["only counted: past retention", "Their receipts are past retention"],
            says_not: &[],
        },
        Case {
            report: ImportReport::from_status(status(10, "received", [9, 0, 0, 0])),
            code: EXIT_PARTLY,
            says: &["1 wait to be applied"],
            says_not: &["Every item"],
        },
        Case {
            report: ImportReport::from_status(status(10, "receiving", [10, 0, 0, 0])),
            code: EXIT_PARTLY,
            says: &["The upload is in progress, or its receiver has died."],
            says_not: &["Every item"],
        },
    ]);
}

fn assert_cases(cases: &[Case]) {
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
fn report_checked_uses_conditional() {
    let accepted = accepted(4, 1, "interrupted");
    let status = status(4, "interrupted", [1, 1, 1, 1]);
    let mut report = report(&accepted, Some(status), EndReason::Checked);
    report.import_id = None;
    let dead = "invoice 7 exists with transaction a".to_owned();
    report.dead_letters = vec![ItemProblem { line: 9, number: Some("7".to_owned()), error: dead }];
    let text = crate::cli::import::summary::render(&report, false);
    assert_eq!(report.exit_code(), EXIT_PARTLY);
    for said in [
        "checked, nothing was sent",
        "would be created",
        "would be dead:",
        "1 is known already",
        "The rest of the file cannot be read",
        "7       invoice 7 exists with",
    ] {
        assert!(text.contains(said), "{said:?} in {text}");
    }
    assert!(!text.contains("dead list") && !text.contains("--status"), "{text}");
}

#[test]
fn summary_lists_first_problems_and_counts_rest() {
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
fn rejected_fields_are_grouped_by_item() {
    let rejection = |line, field: &str, message: &str| RejectedField {
        line,
        field: field.to_owned(),
        message: message.to_owned(),
    };
    let problems = group_rejected_fields(&[
        rejection(3, "amount", "is no number"),
        rejection(3, "currency", "is no currency"),
        // The same field again: another element of the array, on the same line.
        rejection(3, "amount", "is missing or null"),
        rejection(4, "", "is not UTF-8"),
    ]);
    let problems: Vec<_> =
        problems.iter().map(|problem| (problem.line, problem.error.as_str())).collect();
    assert_eq!(
        problems,
        [
            (3, "amount: is no number; currency: is no currency"),
            (3, "amount: is missing or null"),
            (4, "is not UTF-8"),
        ]
    );
}

#[test]
fn summary_strips_control_chars() {
    let mut report = report(&accepted(1, 1, "received"), None, EndReason::NotWaited);
    report.rejections[0].error = "\u{1b}[2Jgone".to_owned();
    report.name = Some("\u{1b}[31m.csv".to_owned());
    assert!(!crate::cli::import::summary::render(&report, false).contains('\u{1b}'));
}

#[test]
fn report_json_unknown_counts_are_null() {
    let unknown = report(&accepted(3, 1, "received"), None, EndReason::TimedOut);
    let value = serde_json::to_value(&unknown).unwrap();
    assert_eq!(value["created"], serde_json::Value::Null);
    assert_eq!((&value["waiting"], &value["rejected"]), (&json!(2), &json!(1)));
    assert_eq!((&value["ended"], &value["state"]), (&json!("timed_out"), &json!("received")));
    let completed = report(
        &accepted(3, 1, "received"),
        Some(status(3, "received", [2, 0, 1, 0])),
        EndReason::Completed,
    );
    let value = serde_json::to_value(&completed).unwrap();
    assert_eq!((&value["created"], &value["batches"]), (&json!(2), &json!(4)));
}
