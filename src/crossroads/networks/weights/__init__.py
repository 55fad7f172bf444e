"""Reads pretrained weights from any usual file without running anything in it, assigns them to a backbone, and caches them.

    read.read_weights            a file of any known format -> named arrays, layer by layer
    assign.assign_weights        those arrays -> the variables of a backbone, all or nothing
    store.obtain                 a catalog record -> its file, from an installed package, the cache or the network
    store.add, store.describe    the commands `crossroads weights add` and `crossroads weights list`
    pretrained.load_pretrained   all steps: "imagenet" or a path -> a backbone with weights

Import them from their modules: `store` loads no Keras.
"""
