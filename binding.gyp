{
  # A door for node-gyp and prebuildify: the build itself is CMakeLists.txt. The target type 'none'
  # makes no compiler rules, only the action runs. This file stays out of the published package.
  "targets": [{
    "target_name": "polylm",
    "type": "none",
    "actions": [{
      "action_name": "cmake",
      "inputs": ["CMakeLists.txt"],
      "outputs": ["<(PRODUCT_DIR)/polylm.node"],
      "action": ["node", "scripts/build-native.mjs", "--arch=<(target_arch)", "--config=<(CONFIGURATION_NAME)", "--copy-to=<(PRODUCT_DIR)"]
    }]
  }]
}
