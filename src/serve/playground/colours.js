// The button that chooses light or dark; theme.js keeps to what was chosen.

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Have a button change the colours, and tell by its state which they are. */
export function offerColours(button) {
  const tell = () => button.setAttribute("aria-pressed", String(isDark()));
  button.onclick = () => {
    const name = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = name;
    localStorage.setItem("theme", name);
    tell();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
}
