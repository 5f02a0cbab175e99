// The page is as high as its visible part, as an on-screen keyboard covers the rest.

const LOW = 300; // px, below which the terminal also gets the header's place

export function followKeyboard() {
  const { visualViewport, document } = window;
  if (!visualViewport) return;
  const { style, classList } = document.documentElement;
  const fit = () => {
    if (visualViewport.scale > 1.01) return; // the user has zoomed in
    style.setProperty("--height", `${visualViewport.height}px`);
    style.setProperty("--top", `${visualViewport.offsetTop}px`);
    classList.toggle("low", visualViewport.height < LOW);
  };
  visualViewport.addEventListener("resize", fit);
  visualViewport.addEventListener("scroll", fit);
  fit();
}
