/** Layout of struct epoll_event: the kernel packs it on x86-64 only. @see epoll_event(3type) */
export const epollEvent = process.arch === "x64" ? { bytes: 12, dataOffset: 4 } : { bytes: 16, dataOffset: 8 };
