"""What pip asks when it downloads xgrammar's source: name and version. pip runs a source's own build backend for that,
with this folder ahead on its path it runs these lines instead, so that nothing of the download is executed."""
import os


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["MLXLM_SOURCE"].split("==")
    folder = f"{name}-{version}.dist-info"
    os.makedirs(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder
