//! The report as JUnit XML, for CI services.

use quick_junit::{NonSuccessKind, Report as JUnit, SerializeError, TestCase, TestCaseStatus, TestSuite};

use crate::column::Group;
use crate::run::Report;
use crate::verdict::Departure;

/// Turns a report into XML.
///
/// # Errors
/// Fails if the XML cannot be written.
pub fn junit(report: &Report) -> Result<String, SerializeError> {
    let mut junit = JUnit::new("kubestream conformance");
    junit.set_time(report.took);
    for group in Group::ALL {
        let mut suite = TestSuite::new(group.name());
        for row in report.rows.iter().filter(|row| row.case.group == group) {
            for cell in &row.cells {
                let status = match &cell.outcome {
                    Ok(()) | Err(Departure::Known { .. }) => TestCaseStatus::success(),
                    Err(departure @ (Departure::Failed { .. } | Departure::Unreached(_))) => {
                        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                        status.set_message(departure.to_string());
                        status
                    }
                    Err(Departure::NotOffered(why)) => {
                        let mut status = TestCaseStatus::skipped();
                        status.set_message(why.as_str());
                        status
                    }
                };
                let mut case = TestCase::new(format!("{}, {}", row.case.name, cell.column.name), status);
                case.set_classname(group.name()).set_time(cell.took);
                if let Err(departure @ Departure::Known { .. }) = &cell.outcome {
                    case.set_system_out(format!("note: {departure}"));
                }
                suite.add_test_case(case);
            }
        }
        if !suite.test_cases.is_empty() {
            junit.add_test_suite(suite);
        }
    }
    junit.to_string()
}
