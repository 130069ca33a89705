import torch

from rsqa.models.keyvalues import Behind, KeyValues


def kv(tokens, seed):
    torch.manual_seed(seed)
    return torch.randn(2, 3, tokens, 4), torch.randn(2, 3, tokens, 4)


def test_what_is_read_is_appended_layer_by_layer():
    store, parts = KeyValues(), [[kv(n, 10 * layer + n) for n in (5, 1, 1, 9)] for layer in range(2)]
    for step in range(4):
        for layer in range(2):
            keys, values = store.update(*parts[layer][step], layer)
            torch.testing.assert_close(keys, torch.cat([p[0] for p in parts[layer][: step + 1]], 2))
            torch.testing.assert_close(values, torch.cat([p[1] for p in parts[layer][: step + 1]], 2))
    assert len(store) == store.get_seq_length() == 16


def test_branches_and_copies_leave_the_store_alone():
    store = KeyValues()
    first = kv(4, 0)
    store.update(*first, 0)
    copy = store.copy(2)
    keys, _ = Behind(store).update(*kv(3, 1), 0)
    assert keys.shape[2] == 7
    copy.update(*kv(6, 2), 0)
    assert (len(store), len(copy)) == (4, 10)
    torch.testing.assert_close(store.layer(0)[0], first[0])
    torch.testing.assert_close(copy.layer(0)[1][:, :, :4], first[1])


def test_room_is_made_once():
    store = KeyValues(room=8)
    store.update(*kv(2, 0), 0)
    at = store.layer(0)[0].data_ptr()
    for seed in range(6):
        store.update(*kv(1, seed), 0)
    assert store.layer(0)[0].data_ptr() == at
