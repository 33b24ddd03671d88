//! Moves what a test has recorded into the past.

use tallyhook::store::receipts::{
    partition_range::ReceiptsRetention, partitions, partitions::ReceiptsMaintenanceReport,
};

use super::{TestApp, app::now, seconds};

pub(crate) const DAY: std::time::Duration = seconds(24 * 60 * 60);

/// Weekly partitions, created four weeks in advance, as of so many days ago.
pub(crate) fn plan(days_ago: i64, keep_days: Option<u32>) -> ReceiptsRetention {
    ReceiptsRetention {
        partition_span: 7 * DAY,
        premake: 28 * DAY,
        keep_for: keep_days.map(|days| DAY * days),
        now: now() - time::Duration::days(days_ago),
    }
}

impl TestApp {
    pub(crate) async fn maintain_receipts(
        &self,
        plan: &ReceiptsRetention,
    ) -> ReceiptsMaintenanceReport {
        partitions::maintain(&self.context.store, plan).await.unwrap()
    }

    /// Moves everything on record so many days into the past: times, and the times in receipt ids.
    /// Creates the partitions for it.
    pub(crate) async fn age(&self, days: i64) {
        self.maintain_receipts(&plan(days, None)).await;
        let earlier = |column: &str| {
            format!(
                "case when substr({column}::text, 15, 1) = '7' then (lpad(to_hex(
                    ('x' || left(translate({column}::text, '-', ''), 12))::bit(48)::bigint
                    - {days} * 86400000::bigint), 12, '0')
                    || substr(translate({column}::text, '-', ''), 13))::uuid else {column} end"
            )
        };
        let id = earlier("receipt_id");
        let books = ["orders", "invoices", "refunds", "resource_changes"].map(|table| {
            format!(
                "update {table} set first_receipt = {}, last_receipt = {}, created_at = created_at - interval '{days} days'",
                earlier("first_receipt"),
                earlier("last_receipt")
            )
        });
        let interval = format!("interval '{days} days'");
        self.execute(&format!(
            "update receipts set receipt_id = {id}, received_at = received_at - {interval},
                 processed_at = processed_at - {interval};
             do $$ declare hour constant integer :=
                 floor(extract(epoch from now() - {interval}) / 3600);
             begin
                 execute format(
                     'create table if not exists inbox_p%s partition of inbox (primary key (key))
                      for values in (%s)', hour, hour);
                 update inbox set receipt_id = {id}, partition_hour = hour;
             end $$;
             update dead_letters set receipt_id = {id},
                 first_failed_at = first_failed_at - {interval},
                 headers = replace(headers::text, receipt_id::text, ({id})::text)::jsonb;
             {}",
            books.join(";")
        ))
        .await;
    }

    /// The number of receipts in each partition, by name.
    pub(crate) async fn tables(&self) -> Vec<(String, i64)> {
        sqlx::query_as(
            "select tableoid::regclass::text, count(*) from receipts group by 1 order by 1",
        )
        .fetch_all(&self.db)
        .await
        .unwrap()
    }
}
