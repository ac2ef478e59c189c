/** The formula of the Homebrew tap, from a release's manifest. A formula and not a cask: casks are quarantined. */
import type { Artefact, Manifest } from "./manifest";

const repository = "https://github.com/mlxlm/mlxlm";

/** @param base the address of the folder with the archives */
export function formula(manifest: Manifest, base = `${repository}/releases/download/v${manifest.version}`): string {
  const artefact = (name: string): Artefact => {
    const found = manifest.artefacts.find(({ platform }) => platform === name);
    if (!found) throw new Error(`the formula needs the archive of ${name}`);
    return found;
  };
  const source = (name: string) => {
    const { file, sha256 } = artefact(name).archive;
    return `url "${base}/${file}"\n      sha256 "${sha256}"`;
  };
  return `class Mlxlm < Formula
  desc "Command-line of mlx-lm in one executable, without Python"
  homepage "${repository}"
  version "${manifest.version}"
  license "MIT"

  livecheck do
    url :stable
    strategy :github_latest
  end

  on_macos do
    depends_on arch: :arm64
    depends_on macos: :sonoma

    on_arm do
      ${source("darwin-arm64")}
    end
  end

  on_linux do
    on_arm do
      ${source("linux-arm64")}
    end
    on_intel do
      ${source("linux-x64")}
    end
  end

  def install
    bin.install "mlxlm"
    bash_completion.install "completions/mlxlm.bash" => "mlxlm"
    zsh_completion.install "completions/_mlxlm"
    fish_completion.install "completions/mlxlm.fish"
    man1.install Dir["man/*.1"]
    man7.install Dir["man/*.7"]
    doc.install "THIRD-PARTY-LICENSES.txt"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/mlxlm --version")
    ENV["XDG_CACHE_HOME"] = testpath/"cache"
    answer = shell_output("#{bin}/mlxlm generate --model demo --prompt 'What is 27 + 58?' 2>/dev/null")
    assert_match "27 + 58 = 85", answer
  end
end
`;
}
