// The colours that were chosen here before. It runs before the page is drawn, so that nothing
// flashes in the other ones; without a choice the system's count, and the style sheet knows them.
"use strict";
{
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}
