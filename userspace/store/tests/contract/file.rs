//! The embedded store's file: who may open it, and what is in it.

use weft_store::{EmbeddedStore, Seen, StoreError};

#[tokio::test]
async fn a_file_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/store.redb");
    let _first = EmbeddedStore::open(&path).await.unwrap();
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("is open already, in another weftd"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_store_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "not a store\n".repeat(1000);
    std::fs::write(&path, &text).unwrap();
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("holds what this weft doesn't understand"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let error = EmbeddedStore::open(&path.join("below"))
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("can't make"), "{error}");
}

#[tokio::test]
async fn an_embedded_store_that_is_new_is_refused_where_another_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("s").display());
    let first = weft_store::open(&url, None, None).unwrap();
    let seen = Seen::of(&first.read().await.unwrap());
    drop(first);
    let same = weft_store::open(&url, None, Some(seen)).unwrap();
    same.read().await.unwrap();
    drop(same);
    let seen = Seen {
        revision: 2,
        ..seen
    };
    let older = weft_store::open(&url, None, Some(seen)).unwrap();
    for error in [
        older.read().await.err(),
        older.transact(None, Vec::new()).await.err(),
    ] {
        let error = error.unwrap();
        assert!(matches!(error, StoreError::WentBack { .. }), "{error:?}");
    }
    let status = older.status();
    assert!(!status.connected && status.problem.is_some(), "{status:?}");
}

#[tokio::test]
async fn a_store_whose_folder_comes_back_is_opened_then() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("parent");
    std::fs::write(&parent, "not a folder").unwrap();
    let url = format!("embedded:{}", parent.join("s").display());
    let store = weft_store::open(&url, None, None).unwrap();
    let error = store.read().await.unwrap_err();
    assert!(error.to_string().contains("can't make"), "{error}");
    assert!(!store.status().connected);
    std::fs::remove_file(&parent).unwrap();
    store.read().await.unwrap();
    assert!(store.status().connected);
}
