//! Splits failing work until each failing item is on its own.

/// What became of a part of the items: the result of the work with all of
/// them, or the error of a part that has one item.
pub(crate) type PartResult<'a, T, R, E> = (&'a [T], Result<R, E>);

/// Runs `work` with all items, and where that fails with each half, down to
/// single items. The parts come back in the order of the items.
///
/// # Errors
/// An outer error of the work ends everything: it says nothing about an item.
pub(crate) async fn bisect<'a, T, R, E, Fatal, F>(
    items: &'a [T],
    work: impl Fn(&'a [T]) -> F,
) -> Result<Vec<PartResult<'a, T, R, E>>, Fatal>
where
    F: Future<Output = Result<Result<R, E>, Fatal>>,
{
    let mut results = Vec::new();
    let mut parts = vec![items];
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        let result = work(part).await?;
        if result.is_err() && part.len() > 1 {
            let (first, second) = part.split_at(part.len() / 2);
            // A stack: the first half is next.
            parts.extend([second, first]);
        } else {
            results.push((part, result));
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails for negative numbers, and for everything at once with a zero.
    async fn sum(part: &[i32]) -> Result<Result<i32, String>, String> {
        if part.contains(&0) {
            return Err("unavailable".to_owned());
        }
        Ok(if part.iter().any(|number| *number < 0) {
            Err(format!("refused {part:?}"))
        } else {
            Ok(part.iter().sum())
        })
    }

    #[tokio::test]
    async fn bisect_without_failure_runs_once() {
        let results = bisect(&[1, 2, 3], sum).await.unwrap();
        assert_eq!(results, [(&[1, 2, 3][..], Ok(6))]);
    }

    #[tokio::test]
    async fn bisect_with_failing_items_isolates_them_in_order() {
        let results = bisect(&[1, -2, 3, 4, 5, -6], sum).await.unwrap();
        let expected = [
            (&[1][..], Ok(1)),
            (&[-2][..], Err("refused [-2]".to_owned())),
            (&[3][..], Ok(3)),
            (&[4][..], Ok(4)),
            (&[5][..], Ok(5)),
            (&[-6][..], Err("refused [-6]".to_owned())),
        ];
        assert_eq!(results, expected);
    }

    #[tokio::test]
    async fn bisect_with_fatal_error_stops() {
        assert_eq!(bisect(&[1, 0, 3], sum).await, Err("unavailable".to_owned()));
    }

    #[tokio::test]
    async fn bisect_without_items_does_nothing() {
        assert_eq!(bisect(&[], sum).await, Ok(Vec::new()));
    }
}
