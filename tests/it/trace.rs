//! A document's story: found by what people know of it, at a cost that does
//! not grow with the tables.

use tallyhook::store::trace;

use crate::support::{ERP, Rig, erp_order, shop_order};

/// Orders of three shops, written as a worker would.
async fn write(rig: &Rig) {
    // No vacuum reads while the test counts.
    rig.execute(
        "alter table orders set (autovacuum_enabled = false);
         insert into orders (source, tenant, order_id, number, first_receipt, last_receipt)
         select 'shop', (n % 3)::text, n::text, '#' || n, gen_random_uuid(), gen_random_uuid()
         from generate_series(1, 30000) as n",
    )
    .await;
}

/// How many pages of the table and its indexes were looked at so far.
async fn pages(rig: &Rig) -> i64 {
    rig.count(
        "select (heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint
         from pg_statio_user_tables where relname = 'orders'",
    )
    .await
}

#[tokio::test]
async fn an_order_is_found_by_the_platforms_id_without_reading_the_index() {
    let rig = Rig::new().await;
    write(&rig).await;
    for analyzed in [false, true] {
        if analyzed {
            rig.execute("vacuum analyze orders").await;
        }
        let mut conn = rig.tools.store.connection().await.unwrap();
        let flush = "select pg_stat_force_next_flush()";
        sqlx::query(flush).execute(&mut *conn).await.unwrap();
        let before = pages(&rig).await;
        let found = trace::documents(&mut conn, "29999").await.unwrap();
        sqlx::query(flush).execute(&mut *conn).await.unwrap();
        let told: Vec<&str> = found.iter().map(|order| order.tenant.as_str()).collect();
        assert_eq!(told, ["2"], "analyzed: {analyzed}");
        let pages = pages(&rig).await - before;
        // The index alone has more than a hundred.
        assert!((1..60).contains(&pages), "{pages} pages, analyzed: {analyzed}");
    }
}

#[tokio::test]
async fn an_order_is_found_once_by_its_number_and_its_id() {
    let rig = Rig::with(&[ERP, crate::support::SHOP], |_| ()).await;
    rig.send(&[erp_order("7", 1, "1.00"), shop_order(7, 1, "2.00")]).await;
    rig.lane("erp").await.step().await;
    rig.lane("shop").await.step().await;
    // One is known by the same text in both ways.
    rig.execute("update orders set number = order_id where source = 'erp'").await;
    let mut conn = rig.tools.store.connection().await.unwrap();
    for (text, sources) in
        [("7", &["erp", "shop"][..]), ("#7", &["shop"]), ("8", &[]), ("shop", &[])]
    {
        let found = trace::documents(&mut conn, text).await.unwrap();
        let told: Vec<&str> = found.iter().map(|order| order.source.as_str()).collect();
        assert_eq!(told, sources, "{text}");
    }
}
