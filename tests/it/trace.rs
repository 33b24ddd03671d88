//! `trace` finds a document's messages at a cost that does not grow with the tables.

use tallyhook::store::{Conn, timeline};

use crate::support::{ERP, TestApp, erp_order, shop_order};

/// Writes orders of three shops.
async fn write(app: &TestApp) {
    // An autovacuum would change the counts.
    app.execute(
        "alter table orders set (autovacuum_enabled = false);
         insert into orders (source, tenant, order_id, number, first_receipt, last_receipt)
         select 'shop', (n % 3)::text, n::text, '#' || n, gen_random_uuid(), gen_random_uuid()
         from generate_series(1, 30000) as n",
    )
    .await;
}

/// The number of pages of tables and indexes that were read so far.
async fn pages(app: &TestApp, tables: &str) -> i64 {
    app.count(&format!(
        "select sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint
         from pg_statio_user_tables where relname like '{tables}'"
    ))
    .await
}

/// The number of pages that a query reads.
async fn cost(app: &TestApp, tables: &str, ask: impl AsyncFnOnce(&mut Conn)) -> i64 {
    let mut conn = app.context.store.connection().await.unwrap();
    let flush = "select pg_stat_force_next_flush()";
    sqlx::query(flush).execute(&mut *conn).await.unwrap();
    let before = pages(app, tables).await;
    ask(&mut conn).await;
    sqlx::query(flush).execute(&mut *conn).await.unwrap();
    pages(app, tables).await - before
}

#[tokio::test]
async fn trace_order_by_platform_id_reads_few_pages() {
    let app = TestApp::new().await;
    write(&app).await;
    for analyzed in [false, true] {
        if analyzed {
            app.execute("vacuum analyze orders").await;
        }
        let pages = cost(&app, "orders", async |conn| {
            let found = timeline::documents(conn, "29999").await.unwrap();
            let actual: Vec<&str> = found.iter().map(|order| order.tenant.as_str()).collect();
            assert_eq!(actual, ["2"], "analyzed: {analyzed}");
        })
        .await;
        // The index alone has more than a hundred.
        assert!((1..60).contains(&pages), "{pages} pages, analyzed: {analyzed}");
    }
}

#[tokio::test]
async fn trace_order_by_number_or_id_is_found_once() {
    let app = TestApp::with(&[ERP, crate::support::SHOP], |_| ()).await;
    app.publish_all(&[erp_order("7", 1, "1.00"), shop_order(7, 1, "2.00")]).await;
    app.consumer("erp").await.step().await;
    app.consumer("shop").await.step().await;
    // For one order, number and id are the same text.
    app.execute("update orders set number = order_id where source = 'erp'").await;
    let mut conn = app.context.store.connection().await.unwrap();
    for (text, sources) in
        [("7", &["erp", "shop"][..]), ("#7", &["shop"]), ("8", &[]), ("shop", &[])]
    {
        let found = timeline::documents(&mut conn, text).await.unwrap();
        let actual: Vec<&str> = found.iter().map(|order| order.source.as_str()).collect();
        assert_eq!(actual, sources, "{text}");
    }
}

#[tokio::test]
async fn trace_messages_read_few_pages_of_receipts() {
    let app = TestApp::new().await;
    // Of three weeks, and some that lie in no partition of time.
    app.execute(
        "do $$ declare part text; begin
            for part in select inhrelid::regclass from pg_inherits
                where inhparent = 'receipts'::regclass
            loop execute format('alter table %s set (autovacuum_enabled = false)', part); end loop;
         end $$;
         insert into receipts (
            receipt_id, source, tenant, event_key, topic, business_key, received_at, outcome,
            attempts)
         select (left(receipt_id_at(now() + interval '1 day' * (n % 30))::text, 24)
                || lpad(n::text, 12, '0'))::uuid,
            'shop', '', 'k' || n % 10000, '', '#' || n % 10000, now(), 'applied', 0
         from generate_series(1, 30000) as n",
    )
    .await;
    for analyzed in [false, true] {
        if analyzed {
            app.execute("vacuum analyze receipts").await;
        }
        for text in ["k77", "#77"] {
            let pages = cost(&app, "receipts%", async |conn| {
                assert_eq!(timeline::entries(conn, text).await.unwrap().len(), 3);
            })
            .await;
            // The rows alone have some four hundred.
            assert!((1..150).contains(&pages), "{pages} pages for {text}, analyzed: {analyzed}");
        }
    }
}
