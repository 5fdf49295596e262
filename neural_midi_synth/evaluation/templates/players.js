for (const article of document.querySelectorAll("article")) {
  const seconds = Number(article.dataset.seconds);
  const players = [...article.querySelectorAll("audio")];
  const picture = article.querySelector(".picture"), head = article.querySelector(".head");
  if (!picture) continue;
  const show = player => {
    head.hidden = false;
    head.style.left = 100 * (left + (right - left) * player.currentTime / seconds) + "%";
    if (!player.paused) requestAnimationFrame(() => show(player));
  };
  for (const player of players) {
    player.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) {
        if (other === player || other.paused) continue;
        if (players.includes(other)) player.currentTime = other.currentTime;
        other.pause();
      }
      show(player);
    });
    player.addEventListener("seeked", () => { if (player.paused) show(player); });
  }
  for (const button of article.querySelectorAll("button[data-time]")) {
    button.addEventListener("click", () => {
      players[0].currentTime = Math.max(Number(button.dataset.time) - .5, 0);
      players[0].play();
    });
  }
  picture.addEventListener("click", event => {
    const box = picture.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width - left) / (right - left);
    const player = players.find(one => !one.paused) ?? players[players.length - 1];
    player.currentTime = Math.min(Math.max(share, 0), 1) * seconds;
    if (player.paused) player.play();
  });
}
